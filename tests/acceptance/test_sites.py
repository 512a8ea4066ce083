"""What a description may add to a site. target/sites.yml holds the sites that are asked here."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Sequence

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Answer, Client

Header = tuple[str, str]

SECURITY_HEADERS = {
    "Strict-Transport-Security": "max-age=63072000",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'self'",
}


def ask(
    client: Client, site: str, target: str, *headers: Header, method: str = "GET", body: bytes = b""
) -> Answer:
    host = f"{site}.example.org"
    return client.ask(target, host=host, sni=host, headers=headers, method=method, body=body)


def seen_by_app(answer: Answer) -> dict[str, str]:
    assert answer.status == 200
    seen = json.loads(answer.body)["environ"]
    assert isinstance(seen, dict)
    return seen


def headers_of_the_policy(answer: Answer) -> bool:
    return {name: answer.all(name) for name in SECURITY_HEADERS} == {
        name: [value] for name, value in SECURITY_HEADERS.items()
    }


class TestDirectoriesOfTheHost:
    @pytest.mark.parametrize(
        ("path", "rule"),
        [
            ("/media/photo.txt", "no-cache"),
            ("/media/own.txt", "no-cache"),
            ("/media/deep/photo.3f2a91bc.txt?v=1", "public, max-age=31536000, immutable"),
        ],
    )
    def test_their_files_are_served_like_those_of_a_release(
        self, client: Client, path: str, rule: str
    ) -> None:
        answer = client.ask(path)
        assert (answer.status, answer.body) == (200, b"photo of the host\n")
        assert answer.one("Content-Type").startswith("text/plain")
        assert answer.one("Cache-Control") == rule
        assert answer.one("X-Content-Type-Options") == "nosniff"
        assert client.ask(path, headers=[("If-None-Match", answer.one("ETag"))]).status == 304

    @pytest.mark.parametrize(
        "path",
        [
            "/media/.photo",
            "/media/.hidden/photo.txt",
            "/media/%2ephoto",
            "/media/stolen.txt",
            "/media/../belongs-to-root.txt",
            "/media/%2e%2e/belongs-to-root.txt",
            "/media../belongs-to-root.txt",
            "/media/..%2fbelongs-to-root.txt",
            "/media../media/photo.txt",
        ],
    )
    def test_nothing_else_is(self, client: Client, path: str) -> None:
        answer = client.ask(path)
        assert answer.status in (400, 403, 404)
        assert b"of the host" not in answer.body
        assert b"belongs" not in answer.body

    @pytest.mark.parametrize("path", ["/media/", "/media/deep/", "/media/none.txt", "/media"])
    def test_what_is_no_file_there_the_app_answers(self, client: Client, path: str) -> None:
        answer = client.ask(path)
        assert (answer.status, answer.body) == (404, b"nothing here\n")
        assert answer.all("Cache-Control") == []


class TestClientsBehindAnotherProxy:
    """Who runs these tests is the trusted proxy of "office" and an unknown client of "hello"."""

    @pytest.mark.parametrize(
        ("claims", "address"),
        [
            (["192.0.2.7"], "192.0.2.7"),
            (["198.51.100.9, 192.0.2.7"], "192.0.2.7"),
            (["198.51.100.9,192.0.2.7, 10.1.2.3"], "192.0.2.7"),
            (["198.51.100.9", "192.0.2.7"], "192.0.2.7"),
            (["2001:db8:1::7"], "2001:db8:1::7"),
        ],
    )
    def test_the_app_learns_the_one_address_that_the_trusted_ones_vouch_for(
        self, client: Client, claims: Sequence[str], address: str
    ) -> None:
        spoofed = [("X-Real-IP", "198.51.100.66"), ("Forwarded", "for=198.51.100.66")]
        seen = seen_by_app(
            ask(client, "office", "/echo", *[("X-Forwarded-For", claim) for claim in claims], *spoofed)
        )
        assert seen["HTTP_X_FORWARDED_FOR"] == address
        assert seen["HTTP_X_REAL_IP"] == address
        assert not [value for value in seen.values() if "198.51.100." in value]

    def test_others_are_not_believed(self, client: Client) -> None:
        with client.connect() as connection:
            own_address = connection.getsockname()[0]
        seen = seen_by_app(ask(client, "hello", "/echo", ("X-Forwarded-For", "192.0.2.7")))
        assert seen["HTTP_X_FORWARDED_FOR"] == own_address


class TestAllowedNetworks:
    @pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8:1::7"])
    @pytest.mark.parametrize(
        "path", ["/release", "/static/style.css", "/static/before.css", "/media/photo.txt"]
    )
    def test_they_are_served(self, client: Client, address: str, path: str) -> None:
        assert ask(client, "office", path, ("X-Forwarded-For", address)).status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            (),
            (("X-Forwarded-For", "198.51.100.9"),),
            (("X-Forwarded-For", "192.0.2.7, 198.51.100.9"),),
            (("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-For", "198.51.100.9")),
            (("X-Forwarded-For", "2001:db8:2::7"),),
            (("X-Forwarded-For", "unknown"),),
            (("X_Forwarded_For", "192.0.2.7"),),
            (("X-Real-IP", "192.0.2.7"),),
            (("Forwarded", "for=192.0.2.7"),),
        ],
    )
    def test_others_are_refused(self, client: Client, headers: Sequence[Header]) -> None:
        answer = ask(client, "office", "/echo", *headers)
        assert answer.status == 403
        assert b"environ" not in answer.body
        assert headers_of_the_policy(answer)

    @pytest.mark.parametrize(
        "path",
        [
            "/static/style.css",
            "/static/before.css",
            "/static/none.css",
            "/static/app/x",
            "/media/photo.txt",
            "/media/none",
            "/x/../static/style.css",
            "//static/style.css",
            "/",
        ],
    )
    def test_files_and_all_paths_are_refused_to_others(self, client: Client, path: str) -> None:
        answer = ask(client, "office", path, ("X-Forwarded-For", "198.51.100.9"))
        assert answer.status == 403
        assert b" of " not in answer.body

    def test_a_body_of_others_does_not_reach_the_app(self, client: Client) -> None:
        assert ask(client, "office", "/echo", method="POST", body=b"x" * 5000).status == 403

    def test_redirects_tell_others_the_origin_and_nothing_else(self, client: Client) -> None:
        plain = client.ask("/echo?q=1", host="office.example.org", port=80, tls=False)
        for answer in (plain, ask(client, "www.office", "/echo?q=1")):
            assert answer.status == 308
            assert answer.one("Location") == "https://office.example.org/echo?q=1"
            assert b"environ" not in answer.body


def password(name: str, secret: str) -> Header:
    return "Authorization", "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


OPS = password("ops", "correct-horse")
DEV = password("dev@example.org", "battery staple")


class TestPasswords:
    @pytest.mark.parametrize("credentials", [OPS, DEV])
    @pytest.mark.parametrize(
        "path", ["/release", "/static/style.css", "/static/before.css", "/media/photo.txt"]
    )
    def test_who_knows_one_is_served(self, client: Client, credentials: Header, path: str) -> None:
        assert ask(client, "staging", path, credentials).status == 200

    @pytest.mark.parametrize(
        "path", ["/", "/echo", "/static/style.css", "/static/before.css", "/static/app/x", "/media/photo.txt"]
    )
    def test_without_one_nothing_is(self, client: Client, path: str) -> None:
        answer = ask(client, "staging", path)
        assert answer.status == 401
        assert answer.one("WWW-Authenticate") == 'Basic realm="staging.example.org"'
        assert headers_of_the_policy(answer)
        assert b" of " not in answer.body
        assert b"environ" not in answer.body

    @pytest.mark.parametrize(
        "credentials",
        [
            password("ops", "wrong"),
            password("ops", ""),
            password("ops", "battery staple"),
            password("nobody", "correct-horse"),
            password("", "correct-horse"),
            password("#", "Ansible managed"),
            ("Authorization", "Basic b3Bz"),
            ("Authorization", "Bearer b3BzOmNvcnJlY3QtaG9yc2U="),
            ("Proxy-Authorization", OPS[1]),
        ],
    )
    def test_a_wrong_one_is_refused(self, client: Client, credentials: Header) -> None:
        assert ask(client, "staging", "/echo", credentials).status == 401
        assert ask(client, "staging", "/static/style.css", credentials).status == 401

    def test_the_app_does_not_get_it(self, client: Client) -> None:
        for path in ("/echo", "/static/app/x"):
            assert "HTTP_AUTHORIZATION" not in seen_by_app(ask(client, "staging", path, OPS))
        own = ("Authorization", "Bearer of-the-app")
        assert seen_by_app(ask(client, "hello", "/echo", own))["HTTP_AUTHORIZATION"] == own[1]

    def test_nobody_is_asked_for_one_without_tls_or_by_another_name(self, client: Client) -> None:
        plain = client.ask("/echo", host="staging.example.org", port=80, tls=False)
        for answer in (plain, ask(client, "www.staging", "/echo")):
            assert answer.status == 308
            assert answer.all("WWW-Authenticate") == []
            assert answer.one("Location") == "https://staging.example.org/echo"


def someone() -> Header:
    """Return an address that has not asked before, as the trusted proxy would tell it."""
    first, second, third = secrets.token_bytes(3)
    return "X-Forwarded-For", f"198.{18 + first % 2}.{second}.{third}"


def statuses(client: Client, site: str, who: Header, count: int, target: str = "/release") -> list[int]:
    return [ask(client, site, target, who).status for _ in range(count)]


class TestLimitOfRequests:
    """ "busy" takes five requests at once and one a minute, "brisk" two and one a second."""

    def test_what_comes_beyond_it_is_refused_and_not_heard_by_the_app(self, client: Client) -> None:
        who, word = someone(), secrets.token_hex(8)
        assert statuses(client, "busy", who, 8, f"/echo/{word}") == [200] * 5 + [429] * 3
        assert client.ask(f"/heard/{word}").body == b"5"
        refused = ask(client, "busy", "/release", who)
        assert refused.status == 429
        assert headers_of_the_policy(refused)
        assert len(refused.one("X-Request-ID")) >= 20

    def test_it_holds_for_each_client_alone(self, client: Client) -> None:
        who, other = someone(), someone()
        assert statuses(client, "busy", who, 6) == [200] * 5 + [429]
        assert statuses(client, "busy", other, 6) == [200] * 5 + [429]

    @pytest.mark.parametrize("network", ["2001:db8:{}:{}", "2001:db8:{}:0", "2001:0:{}:{}", "2001:db8:0:{}"])
    def test_the_addresses_of_an_ipv6_network_are_one_client(self, client: Client, network: str) -> None:
        first, second = (f"{1 + secrets.randbelow(65535):x}" for _ in range(2))
        network = network.format(first, second)
        hosts = ["0:0:0:1", "0:0:0:2", "a:b:c:d", "0:1:0:0", "ffff:ffff:ffff:ffff", "1:0:0:0"]
        neighbours = [("X-Forwarded-For", f"{network}:{host}") for host in hosts]
        assert [ask(client, "busy", "/release", neighbour).status for neighbour in neighbours] == [
            200,
            200,
            200,
            200,
            200,
            429,
        ]
        elsewhere = ("X-Forwarded-For", f"2001:db8:ffff:{secrets.token_hex(2)}::1")
        assert ask(client, "busy", "/release", elsewhere).status == 200

    def test_files_are_not_counted_and_stay(self, client: Client) -> None:
        who = someone()
        files = ("/static/style.css", "/static/before.css", "/media/photo.txt")
        for path in files:
            assert statuses(client, "busy", who, 6, path) == [200] * 6
        assert statuses(client, "busy", who, 6) == [200] * 5 + [429]
        assert [ask(client, "busy", path, who).status for path in files] == [200, 200, 200]
        # No files there: the app is asked.
        for path in ("/static/app/x", "/media/none"):
            assert ask(client, "busy", path, who).status == 429

    def test_redirects_are_not_counted(self, client: Client) -> None:
        who = someone()
        assert statuses(client, "www.busy", who, 8) == [308] * 8
        assert statuses(client, "busy", who, 6) == [200] * 5 + [429]
        assert statuses(client, "www.busy", who, 1) == [308]

    def test_it_holds_for_its_site_alone(self, client: Client) -> None:
        who = someone()
        assert statuses(client, "busy", who, 6) == [200] * 5 + [429]
        assert ask(client, "brisk", "/release", who).status == 200
        assert statuses(client, "hello", who, 8) == [200] * 8
        assert ask(client, "busy", "/release", who).status == 429

    @pytest.mark.parametrize("name", ["Flask-Client", "X-Real-IP", "Forwarded", "X_Forwarded_For"])
    def test_nobody_gets_around_it_by_a_header(self, client: Client, name: str) -> None:
        who = someone()
        assert statuses(client, "busy", who, 6) == [200] * 5 + [429]
        assert ask(client, "busy", "/release", who, (name, "198.51.100.9")).status == 429

    def test_the_app_learns_nothing_of_the_counting(self, client: Client) -> None:
        for site in ("busy", "hello"):
            assert "HTTP_FLASK_CLIENT" not in seen_by_app(ask(client, site, "/echo", someone()))

    def test_who_waits_is_served_again(self, client: Client) -> None:
        who = someone()
        head = f"GET /release HTTP/1.1\r\nHost: brisk.example.org\r\n{who[0]}: {who[1]}\r\n\r\n"
        with client.talk(sni="brisk.example.org") as conversation:
            conversation.send(head.encode() * 30)
            at_once = [conversation.answer().status for _ in range(30)]
        assert at_once[:2] == [200, 200]
        assert set(at_once) == {200, 429}
        end = time.monotonic() + 60
        while (again := ask(client, "brisk", "/release", who).status) != 200:
            assert again == 429
            assert time.monotonic() < end
            time.sleep(0.5)


class TestLinesOfItsOwn:
    def test_they_hold_for_the_site_and_keep_its_headers(self, client: Client) -> None:
        answer = ask(client, "busy", "/retired", someone())
        assert answer.status == 410
        assert headers_of_the_policy(answer)

    def test_they_hold_for_no_other_site_and_name(self, client: Client) -> None:
        assert ask(client, "hello", "/retired").status == 404
        assert ask(client, "www.busy", "/retired").status == 308


class TestPrefixes:
    """ "shared" has an app at /, and others below /reports, /reports/archive.1 and /quota."""

    @pytest.mark.parametrize(
        ("site", "path", "prefix", "target"),
        [
            ("shared", "/reports/echo/x?q=1", "/reports", "/echo/x?q=1"),
            (
                "shared",
                "/reports/echo/a%2Fb//c;d%20?e=%2F&/reports/f",
                "/reports",
                "/echo/a%2Fb//c;d%20?e=%2F&/reports/f",
            ),
            ("shared", "/reports/archive.1/echo/health", "/reports/archive.1", "/echo/health"),
            ("shared", "/quota/echo?/reports/", "/quota", "/echo?/reports/"),
            ("shared", "/reports/static/app/x%2Fy", "/reports", "/static/app/x%2Fy"),
            ("solo", "/app/echo", "/app", "/echo"),
            ("solo", "/app/static/app/x", "/app", "/static/app/x"),
            ("shared", "/echo/reports/", None, "/echo/reports/"),
            ("hello", "/echo", None, "/echo"),
        ],
    )
    def test_an_app_learns_where_it_is(
        self, client: Client, site: str, path: str, prefix: str | None, target: str
    ) -> None:
        for spoofed in (
            (),
            (("X-Forwarded-Prefix", "/evil"), ("SCRIPT_NAME", "/evil"), ("Script-Name", "/evil")),
        ):
            answer = ask(client, site, path, someone(), *spoofed)
            seen = seen_by_app(answer)
            assert json.loads(answer.body)["target"] == target
            assert seen.get("HTTP_X_FORWARDED_PREFIX") == prefix
            assert seen.get("SCRIPT_NAME", "") == ""  # it makes that itself, of the header

    def test_the_name_alone_is_a_directory(self, client: Client) -> None:
        answer = ask(client, "shared", "/reports?q=%2F1")
        assert answer.status == 308
        assert answer.one("Location") == "https://shared.example.org/reports/?q=%2F1"
        assert headers_of_the_policy(answer)
        assert ask(client, "shared", "/reports/archive.1").one("Location") == (
            "https://shared.example.org/reports/archive.1/"
        )
        for path in ("/reportsx", "/reports/archivex1/release"):
            assert ask(client, "shared", path).body == b"nothing here\n"

    @pytest.mark.parametrize("path", ["/%72eports/release", "//reports/release", "/x/../reports/release"])
    def test_another_spelling_of_it_is_nothing(self, client: Client, path: str) -> None:
        answer = ask(client, "shared", path)
        assert answer.status == 404
        assert b"one" not in answer.body
        assert b"nothing here" not in answer.body

    def test_its_files_are_below_it(self, client: Client) -> None:
        for site, prefix in (("shared", "/reports"), ("shared", "/quota"), ("solo", "/app"), ("shared", "")):
            for path, text, rule in (
                ("/static/style.css", b"static/style.css of one\n", "no-cache"),
                ("/static/before.css", b"static/static/before.css of two\n", "no-cache"),
                (
                    "/static/app.3f2a91bc.js",
                    b"static/app.3f2a91bc.js of one\n",
                    "public, max-age=31536000, immutable",
                ),
                ("/media/photo.txt", b"photo of the host\n", "no-cache"),
            ):
                answer = ask(client, site, prefix + path)
                assert answer.status == 200
                assert answer.body.startswith(text)
                assert answer.one("Cache-Control") == rule
                assert headers_of_the_policy(answer)
            packed = ask(client, site, f"{prefix}/static/packed.css", ("Accept-Encoding", "gzip"))
            assert packed.one("Content-Encoding") == "gzip"
            for path in ("/static/.secret", "/static/.hidden/file.txt", "/media/.photo"):
                assert ask(client, site, prefix + path).status == 404
            assert ask(client, site, f"{prefix}/static/style.css", method="POST").status in (403, 405)
            assert ask(client, site, f"{prefix}/static/none.css").body == b"nothing here\n"
        assert ask(client, "solo", "/static/style.css").status == 404

    def test_limits_are_those_of_the_app(self, client: Client) -> None:
        for path, length, status in (
            ("/reports/echo", 1000, 200),
            ("/reports/echo", 1001, 413),
            ("/echo", 1001, 200),
            ("/echo", 65537, 413),
        ):
            assert ask(client, "shared", path, method="POST", body=b"x" * length).status == status
        who = someone()
        assert statuses(client, "shared", who, 6, "/quota/release") == [200] * 5 + [429]
        assert statuses(client, "shared", who, 1, "/release") == [200]
        assert statuses(client, "shared", who, 1, "/reports/release") == [200]
        assert statuses(client, "shared", who, 1, "/quota/static/style.css") == [200]

    def test_one_alone_is_closed(self, client: Client) -> None:
        for path in ("/reports/archive.1/release", "/reports/archive.1/static/style.css"):
            closed = ask(client, "shared", path)
            assert closed.status == 503
            assert closed.one("Retry-After") == "300"
            assert b"Back soon" in closed.body
            assert headers_of_the_policy(closed)
        for path in ("/reports/archive.1/echo/health", "/reports/release", "/release"):
            assert ask(client, "shared", path).status == 200

    @pytest.mark.parametrize("path", ["/", "/release", "/application", "/static/style.css", "/.flask-pages"])
    def test_without_an_app_at_the_top_nothing_is_there(self, client: Client, path: str) -> None:
        answer = ask(client, "solo", path)
        assert answer.status == 404
        assert headers_of_the_policy(answer)
        assert b"nothing here" not in answer.body
        assert ask(client, "solo", "/app/release").body == b"one"
