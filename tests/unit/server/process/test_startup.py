"""Output about models at startup."""

from medserve_server.process.startup import ServedModel


def test_control_characters_in_a_title_are_escaped() -> None:
    model = ServedModel("a", "1", "Röntgen\nforged line \x1b[2J\u202e", "cuda", 1, 2, 0)
    assert model.cells == ("a", "1", r"Röntgen\nforged line \x1b[2J\u202e", "cuda", "no")
