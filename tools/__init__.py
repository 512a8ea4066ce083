"""Tools of this clone: test bed, test suite and demonstration. Standard library only, Python 3.11 or newer.

They run before the virtual environment exists, so nothing may be imported that is not part of Python.
"""
