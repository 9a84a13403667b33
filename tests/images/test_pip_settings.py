from wan22_testing.images.pip_settings import read_settings


def test_a_variable_wins_over_the_installation_and_that_over_the_users_file() -> None:
    listed = """
global.index-url='https://global.example/simple'
:env:.index-url='https://env.example/simple'
install.index-url='https://install.example/simple'
install.trusted-host='install.example'
global.trusted-host='global.example'
list.format='json'
""".strip()
    assert read_settings(listed) == {"index-url": "https://env.example/simple", "trusted-host": "install.example"}


def test_several_values_of_one_setting_stay_several() -> None:
    listed = "global.extra-index-url='\\nhttps://one.example\\nhttps://two.example'"
    assert read_settings(listed)["extra-index-url"].split() == ["https://one.example", "https://two.example"]


def test_a_machine_without_settings_has_none() -> None:
    assert read_settings("") == {}
