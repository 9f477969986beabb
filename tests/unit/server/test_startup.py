"""What is told of a model at the start."""

from medserve_server.process.startup import ServedModel


def test_a_title_can_not_break_a_line_or_order_a_terminal() -> None:
    model = ServedModel("a", "1", "Röntgen\nforged line \x1b[2J\u202e", "cuda", 1, 2, 0)
    assert model.cells == ("a", "1", r"Röntgen\nforged line \x1b[2J\u202e", "cuda", "no")
