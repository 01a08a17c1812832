NAME = "train"
def run() -> None:
    """graphc train soon."""
    raise NotImplementedError
