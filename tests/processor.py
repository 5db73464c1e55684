"""What the processor at hand can do."""

from pathlib import Path


def has(*features: str) -> bool:
    """Return whether the processor has all of these, by the names that Linux gives them."""
    return set(features) <= set(Path("/proc/cpuinfo").read_text().split())
