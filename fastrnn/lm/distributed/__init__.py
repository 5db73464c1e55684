"""Training on several machines, with MXNet's key-value stores.

:mod:`fastrnn.lm.distributed.workers` is what a worker knows of the others;
:mod:`fastrnn.lm.distributed.launch` starts all processes of a training on one machine.
"""
