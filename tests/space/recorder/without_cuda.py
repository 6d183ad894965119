"""Lets the package ``spaces`` run where torch has no CUDA: the two places at which its forked process touches the card do nothing.

All else is its own: it reports at the start, asks for a card, forks, sends events through its queues, gives the card back.
"""

import importlib.abc
import importlib.machinery
import sys


def _pretend_build(torch):
    torch.version.cuda = torch.version.cuda or "12.8"
    if not hasattr(torch._C, "_cuda_init"):
        torch._C._cuda_init = lambda: None
        torch.cuda._is_in_bad_fork = bool  # what a build without CUDA has there cannot be pickled


def _touch_nothing(module):
    module.init = lambda uuid: None
    module.move = lambda callback=None: None


AFTER = {"torch": _pretend_build, "spaces.zero.torch": _touch_nothing}


class Finder(importlib.abc.MetaPathFinder):
    """Finds what all others find, and changes it once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        change = AFTER.get(name)
        spec = change and importlib.machinery.PathFinder.find_spec(name, path)
        if not spec:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
