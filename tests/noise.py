"""The masks of zoneout and of dropout of the state, under the name by which tests import them."""

from fastrnn.check.noise import *  # noqa: F403
