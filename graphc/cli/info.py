NAME = "info"
def run() -> None:
    """graphc info soon."""
    raise NotImplementedError
