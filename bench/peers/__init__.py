"""Who takes part: fastrnn and what else a user would pick, all behind one interface."""

from __future__ import annotations

from typing import Dict, List

from bench.peers.base import Layer, Peer

__all__ = ["Layer", "MissingPeerError", "Peer", "all_peers", "mandatory_groups", "present"]


class MissingPeerError(Exception):
    """Someone without whom a comparison says nothing is not installed."""


def all_peers(device: str) -> List[Peer]:
    """Everyone who may take part on ``cpu`` or ``cuda``, fastrnn first."""
    from bench.peers import cudnn, flashrnn, gluon, haste, kernels, pytorch

    if device == "cpu":
        return [gluon.Fastrnn(), gluon.Mxnet(), pytorch.FastrnnTorch(), pytorch.Pytorch()]
    peers: List[Peer] = [kernels.Fastrnn(), kernels.Fastrnn("stepwise")]
    peers += [pytorch.FastrnnTorch(), pytorch.Pytorch()]
    peers += [cudnn.Cudnn(name) for name in cudnn.ALGORITHMS]
    peers += [cudnn.Cudnn(name, packed=True) for name in cudnn.PACKED]
    return [*peers, flashrnn.Flashrnn(), haste.Haste(), gluon.Mxnet()]


def mandatory_groups(peers: List[Peer], device: str, task: str = "layer") -> Dict[str, List[str]]:
    """The names of those of whom one is needed, by what they are together."""
    groups: Dict[str, List[str]] = {}
    for peer in peers:
        if peer.mandatory(device, task):
            groups.setdefault(peer.group or peer.name, []).append(peer.name)
    return groups


def present(device: str, peers: List[Peer]) -> List[Peer]:
    """Those that are installed.

    Raises
    ------
    MissingPeerError
        Names all that a run on this device must have and that are not, with the reasons.
    """
    reasons = {peer.name: peer.available(device) for peer in peers}
    lacking = [
        f"{group}: {reasons[members[0]]}"
        for group, members in mandatory_groups(peers, device).items()
        if all(reasons[name] for name in members)
    ]
    if lacking:
        where = "a GPU" if device == "cuda" else "the CPU"
        raise MissingPeerError(f"a benchmark on {where} needs {'; '.join(lacking)}")
    return [peer for peer in peers if reasons[peer.name] is None]
