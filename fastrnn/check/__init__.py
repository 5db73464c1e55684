"""``fastrnn check``: whether the kernels are right, and fast, on this machine.

- `kinds`: the kinds of layers. `classes`: the kernels that plans choose for each. `problems`:
  inputs and their float64 results, by `reference`, the oracle, with `cells`, `layer_norm` and
  `noise`. `kernels`: runs a class. `timing`: a layer against MXNet's. `rates`: the cost model's
  constants. `threads`: how many are fastest on a CPU.
- `processes`: runs all that in a process that may hang or die. `command`: the order of things.
- `verdict`: what is kept, and read by the layers. `report`: what is shown.

Importing this package imports neither MXNet nor the native library.
"""
