NAME = "new"
def run() -> None:
    """graphc new soon."""
    raise NotImplementedError
