"""Who takes part: fastrnn and what else a user would pick, all behind one interface."""

from __future__ import annotations

from typing import List

from bench.peers.base import Layer, MissingPeerError, Peer

__all__ = ["Layer", "MissingPeerError", "Peer", "all_peers", "present"]


def all_peers(device: str) -> List[Peer]:
    """Everyone who may take part on ``cpu`` or ``cuda``, fastrnn first."""
    from bench.peers import cudnn, flashrnn, gluon, haste, kernels, pytorch

    if device == "cpu":
        return [gluon.Fastrnn(), gluon.Mxnet(), pytorch.Pytorch()]
    peers: List[Peer] = [kernels.Fastrnn(), kernels.Fastrnn("stepwise"), pytorch.Pytorch()]
    peers += [cudnn.Cudnn(name) for name in cudnn.ALGORITHMS]
    return [*peers, flashrnn.Flashrnn(), haste.Haste(), gluon.Mxnet()]


def present(device: str, peers: List[Peer]) -> List[Peer]:
    """Those that are installed.

    Raises
    ------
    MissingPeerError
        Names all that a run on this device must have and that are not, with the reasons.
    """
    reasons = {peer.name: peer.available(device) for peer in peers}
    lacking = [f"{p.name}: {reasons[p.name]}" for p in peers if p.mandatory and reasons[p.name]]
    if device == "cuda" and lacking:
        raise MissingPeerError("a benchmark on a GPU needs " + "; ".join(lacking))
    return [peer for peer in peers if reasons[peer.name] is None]
