"""What a description may add to a site. target/sites.yml holds the sites that are asked here."""

from __future__ import annotations

import pytest
from ansible_collections.flaskworks.server.tests.acceptance.client import Client


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
