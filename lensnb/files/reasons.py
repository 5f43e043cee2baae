"""What an error says of a file that can not be read."""


def reason_of(error: BaseException) -> str:
    """Its text in one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
