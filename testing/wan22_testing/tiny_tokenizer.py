"""The tiny models' tokenizer: of UMT5's kind, with a fixed vocabulary, since training one is not repeatable."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

PAD, END, BEGIN, UNKNOWN = "<pad>", "</s>", "<s>", "<unk>"
SPECIAL = (PAD, END, BEGIN, UNKNOWN)
"""At ids 0 to 3, as in UMT5."""

_SPACE = "▁"
_UNUSED = "\ue000"
"""Of Unicode's private use."""
_WORDS = """
a an and are around as at back background ball balls beach beautiful become becomes big bigger bird black blue boat book
box boxes bright brown by calm camera car cat chair child cinematic circle circles city close clouds cold color dance
dark day detailed disc discs dog door down downwards dragon dress drops earth eyes face fall falls field film fire fish
flies floating flower flowers fly food forest fox from front garden get gets glass glow go goes gold golden grass gray
green grey ground grow grows hair hand hands he head her high hill his holding home hoop hoops horse house ice in inside
into is it its jumps kitchen lake landscape large larger leaves left light lights little long looking looks low man many
moon morning motion mountain mountains move moves moving near neon night no ocean of old on one orange out over painting
panda park people person photo pink play playing purple rain realistic red rest rests right ring rings rise rises river
road robot rocks room rotate rotates running runs scene sea she shot shrink shrinks sits sitting sky sleeping slide
slides slow slowly small smaller smiling smoke snow snowy soft space spin spins square squares stand standing stands
star stars stay stays still stone storm street style summer sun sunlight sunset table tall that the their there three
through to tree trees triangle triangles truck turn turns two under up upwards video view walking walks wall warm
watching water waves wearing while white wide wild wind window winter with woman wood wooden yellow young
"""
_ENDINGS = "al ed en er es est ing ion ity le ly ment ness ous re tion"
_CHARACTERS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"()-/&%+"
    "色调艳丽过曝静态细节模糊不清字幕风格作品画面止整体发灰最差质量低压缩残留丑陋的余手指得好部脸畸形毁容肢融合动杂乱"
    "背景三条腿人很多倒着走，。、一只在上猫狗海水天山花红绿蓝白黑大小"
)


def build(unused: int = 0) -> Tokenizer:
    """A tokenizer that takes any Unicode text: common English pieces, single characters, else UTF-8 bytes.

    Ends each text with `</s>`; the padding id is 0. With so many pieces more, which are in no text, it is as large as
    another one is.
    """
    pieces = [(special, 0.0) for special in SPECIAL]
    pieces += [(f"<0x{byte:02X}>", -12.0) for byte in range(256)]
    pieces += [(_SPACE, -6.0), *((_SPACE + word, -7.0) for word in sorted(set(_WORDS.split())))]
    pieces += [(ending, -7.5) for ending in _ENDINGS.split()]
    pieces += [(character, -8.0) for character in sorted(set(_CHARACTERS))]
    pieces += [(_unused_piece(number), -20.0) for number in range(unused)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL.index(UNKNOWN), byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement=_SPACE)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, SPECIAL.index(END))]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _unused_piece(number: int) -> str:
    """Of seven characters, which share beginnings as seldom as those of a real vocabulary."""
    scattered = number * 2654435761 % 2**32
    return _UNUSED + "".join(chr(ord("a") + scattered // 26**place % 26) for place in range(6))
