"""Stores, the order of their windows, and the streams that read them."""

if __name__ != "bytropix.datasets":
    raise ImportError(
        "this folder is bytropix.datasets; `import datasets` found it because the checkout is on sys.path. "
        "Import bytropix.datasets, or set PYTHONSAFEPATH=1 to reach another package of that name."
    )
