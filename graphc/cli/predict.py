NAME = "predict"
def run() -> None:
    """graphc predict soon."""
    raise NotImplementedError
