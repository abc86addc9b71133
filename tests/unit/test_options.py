"""The component's options: their meaning, and that invalid values are refused by name."""

import inspect
import json
import re

import pytest
from pox.lib.util import dpid_to_str

from edge import aggregator, options
from edge.options import BadOption, parse_dpid, parse_given
from edge.switch.indexes import GivenIndexes, KeptIndexes
from edge.switch.portnumbers import PortNumbers, Unnumbered

# What POX passes to launch() for an option without a value.
BARE = True

# Python's int() reads these as 5 or 10, but a user may not write them: signs, spaces, underscores,
# digits of other scripts, other bases, leading zeros.
MISSPELT = [
    "+5",
    " 5",
    "5 ",
    "5\n",
    "1_0",
    "\N{ARABIC-INDIC DIGIT FIVE}",
    "\N{FULLWIDTH DIGIT FIVE}",
]
MISSPELT += ["\N{SUPERSCRIPT TWO}", "0b101", "0o5", "05", "0x", "0x_5", "0x 5", "5.", "5L"]


def test_tunnel_ips():
    assert options.tunnel_ips("172.16.0.1,172.16.0.2") == [0xAC100001, 0xAC100002]
    assert options.tunnel_ips(" 10.0.0.1 , 10.0.0.2") == [0x0A000001, 0x0A000002]
    assert options.tunnel_ips("10.0.0.1") == [0x0A000001]
    assert options.tunnel_ips("auto") == []


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
        options.tunnel_ips(text)
    assert "--ips" in str(raised.value)


@pytest.mark.parametrize("text", ["127.0.0.1", "10.0.0.1", "localhost", "a-host.example", "h"])
def test_addresses(text):
    assert options.host("address", text) == text


@pytest.mark.parametrize(
    "text",
    [BARE, "", " ", "10.0.0.1 ", "a b", "10.0.0", "10.0.0.256", "1", "1.2.3.4.5", "::1", "a:1"]
    + ["http://a/", "a,b", "10.0.0.1/8"],
)
def test_addresses_that_are_none(text):
    with pytest.raises(BadOption, match="--address"):
        options.host("address", text)


def test_whole_numbers():
    assert options.whole_number("port", "7744", 1, 65535) == 7744
    assert options.whole_number("port", "0x1e40", 1, 65535) == 7744
    assert options.whole_number("port", "1", 1, 65535) == 1
    assert options.whole_number("port", "65535", 1, 65535) == 65535
    assert options.whole_number("port", 7744, 1, 65535) == 7744


@pytest.mark.parametrize(
    "text", [BARE, "", " ", "x", "0", "-1", "65536", "7744.0", "7744x", "1e3", "None", "7,744"]
)
def test_ports_that_are_none(text):
    with pytest.raises(BadOption, match="--port"):
        options.whole_number("port", text, 1, 65535)


@pytest.mark.parametrize("text", MISSPELT)
def test_a_whole_number_has_one_spelling(text):
    with pytest.raises(BadOption) as raised:
        options.whole_number("max_ports", text, 1, 125)
    assert str(raised.value) == (
        f"--max_ports={text} is not a whole number: 1 to 125, decimal, or hexadecimal with 0x"
    )


@pytest.mark.parametrize("text", ["126", "0x7e", "0", "9" * 5000, "0x" + "f" * 5000])
def test_a_whole_number_that_is_out_of_range(text):
    with pytest.raises(BadOption) as raised:
        options.whole_number("max_ports", text, 1, 125)
    assert str(raised.value) == f"--max_ports={text} is not 1 to 125"


@pytest.mark.parametrize("text, seconds", [("16", 16), ("0.5", 0.5), ("1e2", 100), (".1", 0.1)])
def test_seconds(text, seconds):
    assert options.seconds("max_retry_delay", text) == seconds


@pytest.mark.parametrize(
    "text", [BARE, "", "x", "0", "-1", "0.05", "nan", "inf", "-inf", "86401", "1s", "1,5"]
)
def test_seconds_that_are_none(text):
    with pytest.raises(BadOption, match="--max_retry_delay"):
        options.seconds("max_retry_delay", text)


@pytest.mark.parametrize(
    "text", [*(text for text in MISSPELT if text != "5."), "0x5", "NaN", "infinity", ".", "1e"]
)
def test_seconds_have_one_spelling(text):
    with pytest.raises(BadOption) as raised:
        options.seconds("switch_timeout", text)
    assert str(raised.value) == (
        f"--switch_timeout={text} is not a number of seconds: 0.1 to 86400 seconds, such as 0.5"
    )


def test_seconds_that_are_out_of_range():
    with pytest.raises(BadOption) as raised:
        options.seconds("switch_timeout", "1e999")
    assert str(raised.value) == "--switch_timeout=1e999 is not 0.1 to 86400 seconds"


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
    assert options.datapath_id("dpid", text) == parse_dpid(text) == dpid


@pytest.mark.parametrize(
    "text",
    [BARE, "", "0", "-1", "x", "1.5", "0x", "00:00:00:00:00:00", "0x10000000000000000", "g" * 16]
    + ["18446744073709551616", "00:00:00:00:00:0g", "1:", "1-2"],
)
def test_datapath_ids_that_are_none(text):
    with pytest.raises(BadOption, match="--dpid"):
        options.datapath_id("dpid", text)


@pytest.mark.parametrize(
    "dpid", [1, 0xFFFFFFFFFFFF, 1 << 48, 5 << 48 | 1, 0x000502AC10000001, (1 << 64) - 1]
)
@pytest.mark.parametrize("always_long", [False, True])
def test_a_datapath_id_as_the_log_of_pox_prints_it(dpid, always_long):
    assert parse_dpid(dpid_to_str(dpid, always_long)) == dpid


@pytest.mark.parametrize(
    "text",
    [
        *MISSPELT,
        "1_000",
        "00:00:00:00:00:00:01",
        "00-00-00-00-00-00-01",
        "00:00:00:00:01",
        "00:00:00:00:00:00:00:00:01",
        "00-00:00-00:00-01",
        "00-00-00-00-00-01|",
        "00-00-00-00-00-01|65536",
        "00-00-00-00-00-01|0x5",
        "00-00-00-00-00-01|05",
        "00-00-00-00-00-01|-5",
        "00-00-00-00-00-01|\N{ARABIC-INDIC DIGIT FIVE}",
        "00-00-00-00-00-00|0",
        "00-00-00-00-00-00-00-01|5",
        "00:00:00:00:00:01|5",
        "1|5",
        "|5",
    ],
)
def test_a_datapath_id_is_in_one_of_these_forms(text):
    with pytest.raises(BadOption) as raised:
        options.datapath_id("dpid", text)
    assert str(raised.value).startswith(f"--dpid: {text!r} is not a datapath-id: that is 1 to ")


@pytest.mark.parametrize(
    "text", ["a_b", "10.example", "example.", "xn--bcher-kva.example", "a" * 63 + ".example", "1a"]
)
def test_host_names(text):
    assert options.host("address", text) == text


@pytest.mark.parametrize(
    "text",
    [
        "1.2.3",
        "host.1",
        "0x7f000001",
        "host.0x7f",
        "010.0.0.1",
        "10.0.0.\N{FULLWIDTH DIGIT ONE}",
        "10.0.0.1.",
        "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example",
        "a..b",
        ".a",
        ".",
        "-a",
        "a\x00",
        "a\n",
        "a" * 64,
        "a." * 127,
        "a@b",
        "a#b",
        "[::1]",
    ],
)
def test_a_host_is_no_number_and_has_no_strange_characters(text):
    with pytest.raises(BadOption) as raised:
        options.host("address", text)
    assert str(raised.value) == (
        f"--address={text}: {text!r} is neither an IPv4 address nor a host name"
    )


def test_controllers():
    assert options.upstreams(None, "127.0.0.1", "7744") == [("127.0.0.1", 7744)]
    assert options.upstreams("a:1, 10.0.0.1:2", "x", "y") == [("a", 1), ("10.0.0.1", 2)]


@pytest.mark.parametrize(
    "text",
    [BARE, "", "a", "a:", ":1", "a:0", "a:65536", "a:b", "a:1,", "a:1,a:1", "a b:1", "::1:1"],
)
def test_controllers_that_are_none(text):
    with pytest.raises(BadOption, match="--controllers"):
        options.upstreams(text, "127.0.0.1", "7744")


# A space beside a comma belongs to the list, not to the number.
@pytest.mark.parametrize("text", [text for text in MISSPELT if text != "5 "])
def test_the_port_of_a_controller_has_one_spelling(text):
    with pytest.raises(BadOption, match="(?s)--controllers.* 1 to 65535, decimal"):
        options.upstreams(f"a:1,b:{text},c:2", "127.0.0.1", "7744")
    with pytest.raises(BadOption, match="(?s)--port.* 1 to 65535, decimal"):
        options.upstreams(None, "127.0.0.1", text)


def test_where_to_listen():
    assert options.listen(None) is None
    assert options.listen("6654") == options.listen(":6654") == ("127.0.0.1", 6654)
    assert options.listen("10.0.0.1:6654") == ("10.0.0.1", 6654)


@pytest.mark.parametrize(
    "text",
    [BARE, "", "x", "0", "a:0", "10.0.0.256:1", "a b:1", "1:2:3"]
    + [":", "a:", *MISSPELT, *(f"a:{text}" for text in MISSPELT)],
)
def test_where_not_to_listen(text):
    with pytest.raises(BadOption, match="--listen"):
        options.listen(text)


# ---- the indexes of switches ----


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
    + ["0=1", "1=1;2=2", BARE, "1 =1", "1=0x", "1_0=1", "00:00:00:00:00:00:01=1"]
    + [f"1={text}" for text in MISSPELT if text != "5 "],
)
def test_switches_that_are_none(text):
    with pytest.raises(BadOption, match="--switches"):
        options.indexes(PortNumbers(), text, "unused")


@pytest.mark.parametrize("text", ["1=1_0", "1=\N{SUPERSCRIPT TWO}", "1=+1", "1="])
def test_an_index_that_is_misspelt_is_told_with_what_is_right(text):
    with pytest.raises(BadOption) as raised:
        options.indexes(PortNumbers(), text, "unused")
    assert str(raised.value) == (
        f"--switches: {text!r} is not DPID=INDEX, such as 02:ac:10:00:00:01=1"
    )


@pytest.mark.parametrize("path", [BARE, ""])
def test_a_file_of_indexes_needs_a_name(path):
    with pytest.raises(BadOption, match="--switches_file"):
        options.indexes(PortNumbers(), "auto", path)


def test_switches_keep_the_index_that_they_got(tmp_path):
    path = str(tmp_path / "new" / "switches.json")
    first = KeptIndexes(PortNumbers(), path, parse_dpid)
    assert [first.index(dpid) for dpid in (0xABC, 0xDEF, 0xABC)] == [1, 2, 1]
    again = KeptIndexes(PortNumbers(), path, parse_dpid)
    assert [again.index(dpid) for dpid in (0x123, 0xDEF, 0xABC)] == [3, 2, 1]


def test_the_file_of_indexes_may_name_a_switch_as_the_options_do(tmp_path):
    path = tmp_path / "switches.json"
    path.write_text('{"10": 1, "0x1": 2, "02-00-00-00-00-01|5": 3, "00:00:00:00:00:02": 4}')
    kept = options.indexes(PortNumbers(), "auto", str(path))
    assert [kept.index(dpid) for dpid in (10, 1, 0x0005020000000001, 2)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "1", '{"x": 1}', '{"1": "x"}', '{"1": 1, "2": 1}', '{"1": 0}']
    + ['{"1": 1.5}', '{"1": true}', '{"1": "1"}', '{"1": -1}', '{"1": NaN}', '{"1": null}']
    + ['{"1": 1, "1": 2}', '{"1": 1, "0x1": 2}', '[["1", 1]]', '{"0": 1}', '{"": 1}']
    + [json.dumps({text: 1}) for text in [*MISSPELT, "00:00:00:00:00:00:01"]],
)
def test_a_file_of_indexes_that_is_none_is_refused_by_name(tmp_path, content):
    path = tmp_path / "switches.json"
    path.write_text(content)
    with pytest.raises(BadOption, match=re.escape(str(path))):
        options.indexes(PortNumbers(), "auto", str(path))


# ---- the help ----


def test_every_option_is_explained():
    documentation = inspect.getdoc(aggregator.launch)
    for name, parameter in inspect.signature(aggregator.launch).parameters.items():
        assert re.search(rf"^--{name}\b", documentation, re.MULTILINE), name
        default = parameter.default
        if default is not None and "/" not in default:
            explanation = re.search(rf"^--{name}\b.*?(?=^--|\Z)", documentation, re.M | re.S)[0]
            assert default in explanation, f"--{name} does not say that it is {default} by default"
