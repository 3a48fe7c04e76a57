"""The address that other hosts dial, of a machine without a route out of its network."""

from __future__ import annotations

from claudemesh.runtime.own_address import networks

_HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def test_each_network_of_a_table_of_routes_has_an_address_to_look_up() -> None:
    """A network's own address is none of a host, except where the network is one host."""
    table = (
        _HEAD
        + "eth0\t0000090A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        + "wg0\t0700090A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n\n"
    )
    assert networks(table) == ["10.9.0.1", "10.9.0.7"]
    assert networks(_HEAD) == []
