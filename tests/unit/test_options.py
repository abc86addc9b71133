"""The component's options: what they mean, and that what makes no sense is refused by name."""

import inspect
import re

import pytest

from edge import aggregator
from edge.aggregator import BadOption
from edge.switch.indexes import GivenIndexes, KeptIndexes, parse_dpid, parse_given
from edge.switch.ports import PortNumbers, Unnumbered

# What launch() gets for an option that stands there without a value.
BARE = True


def test_tunnel_ips():
    assert aggregator._tunnel_ips("172.16.0.1,172.16.0.2") == [0xAC100001, 0xAC100002]
    assert aggregator._tunnel_ips(" 10.0.0.1 , 10.0.0.2") == [0x0A000001, 0x0A000002]
    assert aggregator._tunnel_ips("10.0.0.1") == [0x0A000001]
    assert aggregator._tunnel_ips("auto") == []


@pytest.mark.parametrize(
    "text, named",
    [
        (None, "--ips"),
        (BARE, "--ips"),
        ("", "--ips"),
        ("172.16.0", "172.16.0"),
        ("172.16.0.256", "172.16.0.256"),
        ("172.16.0.1.1", "172.16.0.1.1"),
        ("172.16.0.1,", "''"),
        (",", "''"),
        ("172.16.0.1,,172.16.0.2", "''"),
        ("172.16.0.1 172.16.0.2", "172.16.0.1 172.16.0.2"),
        ("172.16.0.1;172.16.0.2", "172.16.0.1;172.16.0.2"),
        ("host", "host"),
        ("::1", "::1"),
        ("0x7f000001", "0x7f000001"),
        ("1", "1"),
        ("172.16.0.1/24", "172.16.0.1/24"),
        ("172.16.0.1:6633", "172.16.0.1:6633"),
        ("172.16.0.01", "172.16.0.01"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("224.0.0.1", "224.0.0.1"),
        ("172.16.0.1,172.16.0.1", "172.16.0.1"),
        ("172.16.0.1,172.16.0.2, 172.16.0.1", "172.16.0.1"),
        ("auto,172.16.0.1", "auto"),
    ],
)
def test_tunnel_ips_that_are_none(text, named):
    with pytest.raises(BadOption, match=re.escape(named)) as raised:
        aggregator._tunnel_ips(text)
    assert "--ips" in str(raised.value)


@pytest.mark.parametrize("text", ["127.0.0.1", "10.0.0.1", "localhost", "a-host.example", "h"])
def test_addresses(text):
    assert aggregator._address("address", text) == text


@pytest.mark.parametrize(
    "text",
    [BARE, "", " ", "10.0.0.1 ", "a b", "10.0.0", "10.0.0.256", "1", "1.2.3.4.5", "::1", "a:1"]
    + ["http://a/", "a,b", "10.0.0.1/8"],
)
def test_addresses_that_are_none(text):
    with pytest.raises(BadOption, match="--address"):
        aggregator._address("address", text)


def test_whole_numbers():
    assert aggregator._whole_number("port", "7744", 1, 65535) == 7744
    assert aggregator._whole_number("port", "0x1e40", 1, 65535) == 7744
    assert aggregator._whole_number("port", "1", 1, 65535) == 1
    assert aggregator._whole_number("port", "65535", 1, 65535) == 65535
    assert aggregator._whole_number("port", 7744, 1, 65535) == 7744


@pytest.mark.parametrize(
    "text", [BARE, "", " ", "x", "0", "-1", "65536", "7744.0", "7744x", "1e3", "None", "7,744"]
)
def test_ports_that_are_none(text):
    with pytest.raises(BadOption, match="--port"):
        aggregator._whole_number("port", text, 1, 65535)


@pytest.mark.parametrize("text, seconds", [("16", 16), ("0.5", 0.5), ("1e2", 100), (".1", 0.1)])
def test_seconds(text, seconds):
    assert aggregator._seconds("max_retry_delay", text) == seconds


@pytest.mark.parametrize(
    "text", [BARE, "", "x", "0", "-1", "0.05", "nan", "inf", "-inf", "86401", "1s", "1,5"]
)
def test_seconds_that_are_none(text):
    with pytest.raises(BadOption, match="--max_retry_delay"):
        aggregator._seconds("max_retry_delay", text)


@pytest.mark.parametrize(
    "text, dpid",
    [
        ("1", 1),
        ("0x10", 16),
        ("0000000000000010", 16),
        ("00:00:00:00:00:10", 16),
        ("00-00-00-00-00-10", 16),
        ("02:ac:10:00:00:01", 0x02AC10000001),
        ("00:00:02:ac:10:00:00:01", 0x02AC10000001),
        ("18446744073709551615", 0xFFFFFFFFFFFFFFFF),
        ("ffffffffffffffff", 0xFFFFFFFFFFFFFFFF),
    ],
)
def test_datapath_ids(text, dpid):
    assert aggregator._datapath_id(text) == parse_dpid(text) == dpid


@pytest.mark.parametrize(
    "text",
    [BARE, "", "0", "-1", "x", "1.5", "0x", "00:00:00:00:00:00", "0x10000000000000000", "g" * 16]
    + ["18446744073709551616", "00:00:00:00:00:0g", "1:", "1-2"],
)
def test_datapath_ids_that_are_none(text):
    with pytest.raises(BadOption, match="--dpid"):
        aggregator._datapath_id(text)


def test_controllers():
    assert aggregator._upstreams(None, "127.0.0.1", "7744") == [("127.0.0.1", 7744)]
    assert aggregator._upstreams("a:1, 10.0.0.1:2", "x", "y") == [("a", 1), ("10.0.0.1", 2)]


@pytest.mark.parametrize(
    "text",
    [BARE, "", "a", "a:", ":1", "a:0", "a:65536", "a:b", "a:1,", "a:1,a:1", "a b:1", "::1:1"],
)
def test_controllers_that_are_none(text):
    with pytest.raises(BadOption, match="--controllers"):
        aggregator._upstreams(text, "127.0.0.1", "7744")


def test_where_to_listen():
    assert aggregator._listen(None) is None
    assert aggregator._listen("6654") == ("127.0.0.1", 6654)
    assert aggregator._listen("10.0.0.1:6654") == ("10.0.0.1", 6654)


@pytest.mark.parametrize("text", [BARE, "", "x", "0", "a:0", "10.0.0.256:1", "a b:1", "1:2:3"])
def test_where_not_to_listen(text):
    with pytest.raises(BadOption, match="--listen"):
        aggregator._listen(text)


# ---- which switch has which numbers ----


def test_switches_that_are_given_their_index():
    assert parse_given("0x10=1, 00:00:00:00:00:20=2") == {0x10: 1, 0x20: 2}
    assert parse_given("auto") is None
    indexes = GivenIndexes(PortNumbers(), {0x10: 1, 0x20: 2})
    assert indexes.index(0x20) == 2
    with pytest.raises(Unnumbered, match="--switches"):
        indexes.index(1)


@pytest.mark.parametrize(
    "text",
    ["", "x", "1", "1=", "=1", "1=x", "1=-1", "1=1,", "1=1,1=2", "1=1,2=1", "1=0", "1=4080"]
    + ["0=1", "1=1;2=2"],
)
def test_switches_that_are_none(text):
    with pytest.raises(BadOption, match="--switches"):
        aggregator._indexes(PortNumbers(), text, "unused")


def test_switches_keep_the_index_that_they_got(tmp_path):
    path = str(tmp_path / "new" / "switches.json")
    first = KeptIndexes(PortNumbers(), path)
    assert [first.index(dpid) for dpid in (0xABC, 0xDEF, 0xABC)] == [1, 2, 1]
    again = KeptIndexes(PortNumbers(), path)
    assert [again.index(dpid) for dpid in (0x123, 0xDEF, 0xABC)] == [3, 2, 1]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "1", '{"x": 1}', '{"1": "x"}', '{"1": 1, "2": 1}', '{"1": 0}']
)
def test_a_file_of_indexes_that_is_none_is_refused_by_name(tmp_path, content):
    path = tmp_path / "switches.json"
    path.write_text(content)
    with pytest.raises(BadOption, match=re.escape(str(path))):
        aggregator._indexes(PortNumbers(), "auto", str(path))


# ---- what the help says ----


def test_every_option_is_explained():
    documentation = inspect.getdoc(aggregator.launch)
    for name, parameter in inspect.signature(aggregator.launch).parameters.items():
        assert re.search(rf"^--{name}\b", documentation, re.MULTILINE), name
        default = parameter.default
        if default is not None and "/" not in default:
            explanation = re.search(rf"^--{name}\b.*?(?=^--|\Z)", documentation, re.M | re.S)[0]
            assert default in explanation, f"--{name} does not say that it is {default} by default"
