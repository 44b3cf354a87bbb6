"""Which URLs and addresses may be fetched: the forms attackers use, and those that honest users need."""

from __future__ import annotations

import pytest

from app.fetch.guard import Refused, Rules, is_public, judge_addresses, judge_url

RULES = Rules()

REFUSED_URLS = [
    # schemes
    "ftp://example.com/x",
    "file:///etc/passwd",
    "gopher://example.com/",
    "data:image/png;base64,QUJD",
    "javascript:alert(1)",
    "//example.com/x",
    "example.com/x",
    "",
    "http:",
    "http://",
    "https:///path",
    "http:example.com",
    # numbers that a resolver would read as an address
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.0.0.01/",
    "http://1.2.3.4.5/",
    "http://256.1.1.1/",
    "http://0/",
    "http://0x/",
    "http://example.0x7f/",
    "http://example.123/",
    "http://1.2.3/",
    "http://[::ffff:127.0.0.1",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[v1.x]/",
    "http://[::1]x/",
    "http://[1.2.3.4]/",
    "http://::1/",
    # user info, ports
    "http://user@example.com/",
    "http://example.com@127.0.0.1/",
    "http://user:password@example.com/",
    "http://example.com:22/",
    "http://example.com:8080/",
    "http://example.com:0/",
    "http://example.com:65616/",
    "http://example.com:/",
    "http://example.com:08/",
    "http://example.com:+80/",
    "http://example.com:80:80/",
    "http://example.com:٨٠/",
    # characters
    "http://example.com\\@127.0.0.1/",
    "http://exam ple.com/",
    "http://example.com/\r\nHost: x",
    "http://example.com/\tx",
    " http://example.com/",
    "http://example.com/\x00",
    "http://example.com/\x7f",
    "http://example.com/\u2028",
    "http://exa%6dple.com/",
    "http://%31%32%37.0.0.1/",
    "http://ex_ample!.com/",
    "http://-example.com/",
    "http://example..com/",
    "http://.example.com/",
    "http://example.com../",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 130 + "com/",
    "http://example.com/" + "x" * 2048,
    "http://\ud800.com/",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_url_that_could_mean_two_things_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        judge_url(url, RULES)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1/", "127.0.0.1"),
        ("http://127.0.0.1./", "127.0.0.1"),
        ("http://127。0。0。1/", "127.0.0.1"),
        ("http://[::1]/", "::1"),
        ("http://[0:0:0:0:0:0:0:1]/", "::1"),
        ("http://[::ffff:7f00:1]/", None),
        ("http://[64:ff9b::7f00:1]/", "64:ff9b::7f00:1"),
        ("http://169.254.169.254/latest", "169.254.169.254"),
    ],
)
def test_an_address_in_any_spelling_is_judged_as_an_address(url: str, address: str | None) -> None:
    target = judge_url(url, RULES)

    found = target.address

    assert found is not None
    assert address in (None, found)
    assert not is_public(found, RULES)


@pytest.mark.parametrize("host", ["127.0.0.1", "１２７.0.0.1", "①②⑦.0.0.1"])
def test_letters_that_become_digits_are_seen_after_they_did(host: str) -> None:
    target = judge_url(f"http://{host}/", RULES)

    assert target.address == "127.0.0.1"


@pytest.mark.parametrize(
    ("url", "host", "port", "sent"),
    [
        ("https://example.com", "example.com", 443, "https://example.com/"),
        ("HTTPS://Example.COM./a?b=c#d", "example.com", 443, "https://example.com/a?b=c"),
        ("http://example.com:443/x", "example.com", 443, "http://example.com:443/x"),
        ("https://münchen.example/x", "xn--mnchen-3ya.example", 443, "https://xn--mnchen-3ya.example/x"),
        ("https://a.example/雪.png", "a.example", 443, "https://a.example/%E9%9B%AA.png"),
        ("https://a.example/x?k=A%2FB%2b&s=a+b==", "a.example", 443, "https://a.example/x?k=A%2FB%2b&s=a+b=="),
        ("https://a.example/x?a={b}|c", "a.example", 443, "https://a.example/x?a=%7Bb%7D%7Cc"),
        ("https://8.8.8.8/x", "8.8.8.8", 443, "https://8.8.8.8/x"),
        ("https://[2606:4700::0001]/x", "2606:4700::1", 443, "https://[2606:4700::1]/x"),
    ],
)
def test_an_honest_url_is_sent_as_it_was_meant(url: str, host: str, port: int, sent: str) -> None:
    target = judge_url(url, RULES)

    assert (target.host, target.port, target.url) == (host, port, sent)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - to be refused, not to be bound
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.170",
        "192.0.2.1",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.168.1.1",
        "192.175.48.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "2001::1",
        "2001:0:1:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "3fff::1",
        "3fff:fff::1",
        "4000::1",
        "1fff::1",
        "",
        "localhost",
        "127.1",
        "0x7f.0.0.1",
        "2606:4700::1%1",
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(address, RULES)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "168.63.129.15",
        "2606:4700:4700::1111",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2003::1",
        "3ffe::1",
        "3fff:1000::1",
    ],
)
def test_the_neighbours_of_the_refused_networks_are_public(address: str) -> None:
    assert is_public(address, RULES)


def test_one_bad_answer_refuses_the_name() -> None:
    assert judge_addresses(["8.8.8.8", "2606:4700::1"], RULES) == ("8.8.8.8", "2606:4700::1")

    for mixed in (["8.8.8.8", "127.0.0.1"], ["fd00::1", "8.8.8.8"], ["8.8.8.8", "::ffff:8.8.4.4"], []):
        with pytest.raises(Refused):
            judge_addresses(mixed, RULES)


def test_an_operator_can_refuse_more_networks_and_plain_http() -> None:
    rules = Rules.of(
        ports=[443], allow_http=False, allow_hosts=[], refuse_networks=["8.8.8.0/24", "2606::/16"], own_url=None
    )

    assert not is_public("8.8.8.8", rules)
    assert not is_public("2606:4700::1", rules)
    assert is_public("8.8.9.8", rules)
    with pytest.raises(Refused):
        judge_url("http://example.com:443/", rules)


def test_a_network_that_is_none_stops_the_start() -> None:
    with pytest.raises(ValueError, match="bad"):
        Rules.of(ports=[], allow_http=True, allow_hosts=[], refuse_networks=["bad"], own_url=None)


@pytest.mark.parametrize("own_url", ["https://gw.example", "https://GW.example:443/base"])
def test_our_own_host_is_refused(own_url: str) -> None:
    rules = Rules.of(ports=[80, 443], allow_http=True, allow_hosts=[], refuse_networks=[], own_url=own_url)

    for url in ("https://gw.example./api/jobs/x", "http://GW.example/"):
        with pytest.raises(Refused):
            judge_url(url, rules)
    assert judge_url("https://other.example/", rules).host == "other.example"


def test_the_allow_list_takes_exactly_a_host_and_its_port() -> None:
    rules = Rules.of(
        ports=[443], allow_http=True, allow_hosts=["Files.internal:9000", "[::1]:81"], refuse_networks=[], own_url=None
    )

    assert judge_url("http://files.internal:9000/a", rules).is_allow_listed
    assert judge_url("http://[0::1]:81/a", rules).is_allow_listed
    for other in ("http://files.internal:9001/", "http://x.files.internal:9000/", "http://files.internal/"):
        with pytest.raises(Refused):
            judge_url(other, rules)
    assert not judge_url("https://files.internal/", rules).is_allow_listed
