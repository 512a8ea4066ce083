"""The page about hardened hosts says what was found."""

from __future__ import annotations

from tools.audit_hosts import Audited, page


def test_the_page_compares_before_and_after() -> None:
    hosts = [
        Audited("a", "192.0.2.1", "12.15", [60, 81], [False, True], ["SSH-7408", "FILE-6310"]),
        Audited("b", "192.0.2.2", "13.7", [61, 80], [False, False], ["SSH-7408"]),
    ]
    text = page(hosts, "lynis 3.1.4 and ssh-audit 3.9.0", "2026-11-21")
    assert "Written by `make audit-hosts` on 2026-11-21, with lynis 3.1.4 and ssh-audit 3.9.0.\n" in text
    assert "| 12.15 | 60 | 81 | fails | passes |\n| 13.7 | 61 | 80 | fails | fails |\n\n" in text
    assert text.endswith("by the names of its tests: FILE-6310, SSH-7408.\n")
