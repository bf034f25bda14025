"""Any job, by ranks that are told how to reach the S3 server."""

import importlib
import os


def there(options, job, *args):
    """Do a job, ``"module:function"``, with fsspec told."""
    tell(options)
    module, _, name = job.partition(":")
    return getattr(importlib.import_module(module), name)(*args)


def tell(options):
    """Tell fsspec how to reach the server. It answers some of several puts at once into a new folder with a 500."""
    from fsspec.config import conf

    conf["s3"] = options
    os.environ["HOLDFAST_PATIENCE"] = "30"
