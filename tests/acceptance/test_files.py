"""Static files: paths in all spellings, ranges, conditions."""

from __future__ import annotations

import email
import email.policy
import gzip
import hashlib

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Answer, Client
from ansible_collections.flaskworks.server.tests.acceptance.expected import secured

STYLE = b"static/style.css of one\n" + b"/* padding */\n" * 200
LARGE = (b"0123456789abcde\n" * 1_250_000)[:20_000_000]


class TestPaths:
    """What is outside the directory is never served; what the app answers there is its affair."""

    @pytest.mark.parametrize("name", ["outside.txt", "only-outside.txt"])
    @pytest.mark.parametrize(
        "way",
        [
            "/static/..\\",
            "/static/%5c../",
            "/static/..%5c",
            "/static/..%5C..%5c",
            "/static/..;/",
            "/static/..;a=b/",
            "/static/.;/../",
            "/static;/../",
            "/static;/",
            "/static/%2e%2e;/",
            "/static/.%2e/",
            "/static/%2e./",
            "/static/%2E%2E%2F",
            "/static/%252e%252e%252f",
            "/static/%25252e%25252e/",
            "/static/%c0%ae%c0%ae/",
            "/static/%c0%2e%c0%2e%c0%af",
            "/static/%e0%80%ae%e0%80%ae/",
            "/static/%u002e%u002e/",
            "/static/..%00/",
            "/static/%00../",
            "/static/..%0d%0a/",
            "/static/.../",
            "/static/..../",
            "/static/images/../../",
            "/static/images/%2e%2e/%2e%2e/",
            "/static/images//..//../",
            "/static/images/..%2f..%2f",
            "/static/./../",
            "/static/.//../",
            "/static//",
            "/static/style.css/../../",
            "/static/no-such-directory/../../",
            "/static..",
            "/static../",
            "/static%2f..%2f",
            "/static%2f../",
            "/%2fstatic/../",
            "//static/../",
            "/./static/../",
            "/x/../static/../",
            "/static/static/../../",
            "/static/..%ef%bc%8f",
            "/static/%ef%bc%8e%ef%bc%8e/",
            "/static/~root/../",
            "/Static/../",
        ],
    )
    def test_nothing_outside_is_served(self, client: Client, way: str, name: str) -> None:
        answer = client.ask(f"{way}{name}")
        assert answer.status in (400, 403, 404)
        assert b"outside.txt of" not in answer.body

    @pytest.mark.parametrize(
        "target",
        [
            "https://hello.example.org/static/../outside.txt",
            "https://hello.example.org/static/%2e%2e/outside.txt",
        ],
    )
    def test_neither_by_a_whole_address(self, client: Client, target: str) -> None:
        answer = client.ask(target)
        assert answer.status in (400, 403, 404)
        assert b"outside.txt of" not in answer.body

    @pytest.mark.parametrize(
        "path",
        [
            "/static/.secret",
            "/static/%2esecret",
            "/static/%2Esecret",
            "/static/./.secret",
            "/static//.secret",
            "/static/images/../.secret",
            "/static/.hidden/file.txt",
            "/static/.hidden//file.txt",
            "/static/%2ehidden/file.txt",
            "/static/%2ehidden%2ffile.txt",
            "/static/images/../.hidden/file.txt",
            "/static/.hidden/../.secret",
            "/static/.before",
            "/static/%2ebefore",
        ],
    )
    def test_dot_files_are_not_there(self, client: Client, path: str) -> None:
        answer = client.ask(path)
        assert answer.status in (403, 404)
        assert b" of one" not in answer.body
        assert b" of two" not in answer.body

    @pytest.mark.parametrize(
        "path", ["/static/", "/static", "/static/images/", "/static/images", "/static/images/.", "/static//"]
    )
    def test_directories_are_not_listed(self, client: Client, path: str) -> None:
        answer = client.ask(path)
        assert (answer.status, answer.body) == (404, b"nothing here\n")

    @pytest.mark.parametrize(
        "path",
        [
            "/static/images/logo.svg",
            "/static/images/../style.css",
            "/static/%73tyle.css",
            "/static//style.css",
            "/static/./style.css",
            "/static/style.css?../x",
        ],
    )
    def test_other_spellings_of_a_file_are_that_file(self, client: Client, path: str) -> None:
        answer = client.ask(path)
        assert answer.status == 200
        assert b" of one\n" in answer.body

    @pytest.mark.parametrize(
        "path", ["/static/packed.css.gz", "/STATIC/style.css", "/static/style.css.bak", "/static/STYLE.css"]
    )
    def test_names_are_taken_literally(self, client: Client, path: str) -> None:
        answer = client.ask(path)
        assert (answer.status, b"style.css of" in answer.body) == (
            200 if path.endswith(".gz") else 404,
            False,
        )


class TestRanges:
    @pytest.mark.parametrize(
        ("asked", "first", "last"),
        [
            ("bytes=0-9", 0, 9),
            ("bytes=5-", 5, 2823),
            ("bytes=-7", 2817, 2823),
            ("bytes=2820-9999", 2820, 2823),
            ("bytes=0-0", 0, 0),
        ],
    )
    def test_a_part_is_sent(self, client: Client, asked: str, first: int, last: int) -> None:
        answer = client.ask("/static/style.css", headers=[("Range", asked)])
        assert answer.status == 206
        assert answer.one("Content-Range") == f"bytes {first}-{last}/2824"
        assert answer.body == STYLE[first : last + 1]
        assert answer.one("Cache-Control") == "no-cache"
        secured(answer)

    def test_several_parts_are_sent_together(self, client: Client) -> None:
        answer = client.ask("/static/style.css", headers=[("Range", "bytes=0-4,100-109,-3")])
        assert answer.status == 206
        message = email.message_from_bytes(
            f"Content-Type: {answer.one('Content-Type')}\r\n\r\n".encode() + answer.body,
            policy=email.policy.HTTP,
        )
        assert message.get_content_type() == "multipart/byteranges"
        parts = [part for part in message.walk() if not part.is_multipart()]
        assert [part["Content-Range"] for part in parts] == [
            "bytes 0-4/2824",
            "bytes 100-109/2824",
            "bytes 2821-2823/2824",
        ]
        assert [part.get_payload(decode=True) for part in parts] == [STYLE[:5], STYLE[100:110], STYLE[-3:]]
        secured(answer)

    def test_a_part_that_is_not_there_is_refused(self, client: Client) -> None:
        answer = client.ask("/static/style.css", headers=[("Range", "bytes=2824-")])
        assert answer.status == 416
        assert answer.all("Content-Range") == {"nginx": ["bytes */2824"], "apache": []}[client.proxy]
        secured(answer)

    @pytest.mark.parametrize("asked", ["lines=0-9", "bytes=9-0", "bytes=x-y", "bytes=", "0-9"])
    def test_what_is_no_range_asks_for_all_or_nothing(self, client: Client, asked: str) -> None:
        answer = client.ask("/static/style.css", headers=[("Range", asked)])
        assert answer.status in (200, 416)
        assert answer.status == 416 or answer.body == STYLE

    def test_a_thousand_parts_are_not_worth_more_than_the_file(self, client: Client) -> None:
        ranges = "bytes=" + ",".join(f"{start}-" for start in range(1000))
        answer = client.ask("/static/style.css", headers=[("Range", ranges)])
        assert answer.status == {"nginx": 200, "apache": 206}[client.proxy]
        assert answer.body == STYLE

    def test_a_part_of_a_large_file(self, client: Client) -> None:
        answer = client.ask("/static/large.bin", headers=[("Range", "bytes=10000000-10999999")])
        assert answer.status == 206
        assert answer.one("Content-Range") == "bytes 10000000-10999999/20000000"
        assert answer.body == LARGE[10_000_000:11_000_000]

    def test_a_part_of_what_has_changed_is_not_sent(self, client: Client) -> None:
        tag = client.ask("/static/style.css").one("ETag")
        part = client.ask("/static/style.css", headers=[("Range", "bytes=0-9"), ("If-Range", tag)])
        whole = client.ask("/static/style.css", headers=[("Range", "bytes=0-9"), ("If-Range", '"other"')])
        assert (part.status, part.body) == (206, STYLE[:10])
        assert (whole.status, whole.body) == (200, STYLE)

    def test_an_answer_of_the_app_is_not_cut(self, client: Client) -> None:
        whole = client.ask("/bytes/1000")
        answer = client.ask("/bytes/1000", headers=[("Range", "bytes=0-9")])
        assert (answer.status, answer.body) == (200, whole.body)
        assert answer.all("Content-Range") == []


class TestConditions:
    @staticmethod
    def ask(client: Client, *headers: tuple[str, str], path: str = "/static/style.css") -> Answer:
        answer = client.ask(path, headers=headers)
        assert (answer.status == 304) == (answer.body == b"") or answer.status == 412
        secured(answer)
        return answer

    @pytest.mark.parametrize("form", ["{}", "W/{}", '"a", {}, "b"', '"a",{}', "*"])
    def test_a_known_tag_spares_the_body(self, client: Client, form: str) -> None:
        tag = client.ask("/static/style.css").one("ETag").removeprefix("W/")
        assert self.ask(client, ("If-None-Match", form.format(tag))).status == 304

    @pytest.mark.parametrize("tag", ['"other"', 'W/"other"', '""', "other"])
    def test_an_unknown_one_does_not(self, client: Client, tag: str) -> None:
        assert self.ask(client, ("If-None-Match", tag)).status == 200

    def test_the_time_of_the_last_change_spares_the_body(self, client: Client) -> None:
        time = client.ask("/static/style.css").one("Last-Modified")
        assert self.ask(client, ("If-Modified-Since", time)).status == 304
        assert self.ask(client, ("If-Modified-Since", "Sat, 01 Jan 2000 00:00:00 GMT")).status == 200

    def test_a_tag_counts_more_than_a_time(self, client: Client) -> None:
        time = client.ask("/static/style.css").one("Last-Modified")
        assert self.ask(client, ("If-None-Match", '"other"'), ("If-Modified-Since", time)).status == 200

    def test_conditions_that_fail_are_told(self, client: Client) -> None:
        assert self.ask(client, ("If-Match", '"other"')).status == 412
        assert self.ask(client, ("If-Unmodified-Since", "Sat, 01 Jan 2000 00:00:00 GMT")).status == 412

    def test_the_compressed_form_has_a_tag_of_its_own(self, client: Client) -> None:
        accepting = ("Accept-Encoding", "gzip")
        first = client.ask("/static/packed.css", headers=[accepting])
        again = self.ask(client, accepting, ("If-None-Match", first.one("ETag")), path="/static/packed.css")
        assert (first.one("Content-Encoding"), again.status) == ("gzip", 304)

    def test_files_that_are_compressed_on_the_way_are_not_sent_twice(self, client: Client) -> None:
        accepting = ("Accept-Encoding", "gzip")
        first = client.ask("/static/style.css", headers=[accepting])
        assert gzip.decompress(first.body) == STYLE
        assert self.ask(client, accepting, ("If-None-Match", first.one("ETag"))).status == 304

    @pytest.mark.parametrize("accepted", ["gzip", "identity"])
    def test_pages_of_the_app_are_not_sent_twice(self, client: Client, accepted: str) -> None:
        """Whatever compression makes of the app's tag, the app knows it again."""
        accepting = ("Accept-Encoding", accepted)
        first = client.ask("/version", headers=[accepting])
        assert first.all("Content-Encoding") == (["gzip"] if accepted == "gzip" else [])
        assert (
            self.ask(client, accepting, ("If-None-Match", first.one("ETag")), path="/version").status == 304
        )


class TestDownloads:
    def test_large_files_are_complete(self, client: Client) -> None:
        answer = client.ask("/static/large.bin")
        assert answer.one("Content-Length") == "20000000"
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(LARGE).digest()
