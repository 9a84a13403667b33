"""A world of coloured shapes that move: clips with captions, and a judge that reads back what a video shows."""
