import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Models this small lose more time between threads than they win, the more so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
