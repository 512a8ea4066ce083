"""What auditors print is understood. The samples are what they said of hosts of `make audit`, shortened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import audit_pages, findings
from tools.audit_pages import Target
from tools.findings import Finding, Verdict
from tools.steps import Stop

COMPLIANT = """
 COMPLIANCE AGAINST TLS CONFIGURATION
 ------------------------------------

    Checking results against Mozilla's "intermediate" configuration. See https://ssl-config.mozilla.org/ for more details.

    hello.example.org:443: OK - Compliant.

"""  # noqa: E501 - as it was printed

NOT_COMPLIANT = """
 COMPLIANCE AGAINST TLS CONFIGURATION
 ------------------------------------

    Checking results against Mozilla's "modern" configuration. See https://ssl-config.mozilla.org/ for more details.

    hello.example.org:443: FAILED - Not compliant.
        * tls_versions: TLS versions {'TLSv1.2'} are supported, but should be rejected.
        * ciphers: Cipher suites {'TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256', 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256'} are supported, but should be rejected.

"""  # noqa: E501 - as it was printed

GRADED = """
[
{
              "id"           : "engine_problem",
              "ip"           : "/",
              "port"         : "443",
              "severity"     : "WARN",
              "finding"      : "No engine or GOST support via engine with your /usr/bin/openssl"
          }
,         {
              "id"           : "TLS1_3",
              "ip"           : "hello.example.org/172.17.0.6",
              "port"         : "443",
              "severity"     : "OK",
              "finding"      : "offered with final"
          }
,         {
              "id"           : "BREACH",
              "ip"           : "hello.example.org/172.17.0.6",
              "port"         : "443",
              "severity"     : "MEDIUM",
              "cve"          : "CVE-2013-3587",
              "cwe"          : "CWE-310",
              "finding"      : "potentially VULNERABLE, gzip HTTP compression detected  - only supplied '/' tested"
          }
,         {
              "id"           : "final_score",
              "ip"           : "hello.example.org/172.17.0.6",
              "port"         : "443",
              "severity"     : "INFO",
              "finding"      : "96"
          }
,         {
              "id"           : "overall_grade",
              "ip"           : "hello.example.org/172.17.0.6",
              "port"         : "443",
              "severity"     : "OK",
              "finding"      : "A+"
          }
]
"""  # noqa: E501 - as it was printed

LINTED = """
[
  {
    "config": "\\nserver {\\n\\tserver_name hello.example.org;\\n}",
    "description": "The try_files directive introduces performance overhead.",
    "file": "/etc/nginx/sites-enabled/flask-hello.conf",
    "line": 408,
    "path": "-",
    "plugin": "try_files_is_evil_too",
    "reason": "The try_files directive introduces performance overhead without open_file_cache",
    "severity": "MEDIUM",
    "summary": "The try_files directive is evil without open_file_cache"
  },
  {
    "config": "",
    "description": "TLSv1.0 and TLSv1.1 are deprecated.",
    "file": "<stdin>",
    "line": 34,
    "path": "-",
    "plugin": "weak_ssl_tls",
    "reason": "Insecure protocols enabled: TLSv1, TLSv1.1. TLSv1.0 and TLSv1.1 are vulnerable to POODLE, BEAST, and other attacks.",
    "severity": "HIGH",
    "summary": "Weak SSL/TLS configuration"
  }
]
"""  # noqa: E501 - as it was printed

TRY_FILES = Finding(
    "try_files_is_evil_too",
    "medium",
    "The try_files directive introduces performance overhead without open_file_cache",
)


def test_a_compliant_server_is_taken_for_one() -> None:
    assert findings.sslyze(COMPLIANT) == Verdict("compliant")


def test_what_keeps_a_server_from_compliance_is_told_in_one_order() -> None:
    assert findings.sslyze(NOT_COMPLIANT) == Verdict(
        "not compliant",
        (
            Finding("tls_versions", "high", "TLS versions 'TLSv1.2' are supported, but should be rejected."),
            Finding(
                "ciphers",
                "high",
                "Cipher suites 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256', "
                "'TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256' are supported, but should be rejected.",
            ),
        ),
    )


def test_a_grade_comes_with_what_is_worse_than_a_remark() -> None:
    assert findings.testssl(GRADED) == Verdict(
        "A+ (96)",
        (
            Finding(
                "engine_problem",
                "warn",
                "No engine or GOST support via engine with your /usr/bin/openssl",
            ),
            Finding(
                "BREACH",
                "medium",
                "potentially VULNERABLE, gzip HTTP compression detected  - only supplied '/' tested",
            ),
        ),
    )


def test_a_lower_grade_is_a_finding_with_its_reasons() -> None:
    capped = [
        *[{**entry, "finding": "A"} for entry in json.loads(GRADED) if entry["id"] == "overall_grade"],
        {"id": "final_score", "severity": "INFO", "finding": "96"},
        {
            "id": "grade_cap_reason_1",
            "severity": "INFO",
            "finding": "Grade capped to A. HSTS is not offered",
        },
    ]
    assert findings.testssl(json.dumps(capped)) == Verdict(
        "A (96)", (Finding("overall_grade", "high", "A; Grade capped to A. HSTS is not offered"),)
    )


def test_what_is_in_the_file_of_the_distribution_is_named_so() -> None:
    assert findings.gixy(LINTED) == Verdict(
        "1 high, 1 medium",
        (
            TRY_FILES,
            Finding(
                "weak_ssl_tls in nginx.conf",
                "high",
                "Insecure protocols enabled: TLSv1, TLSv1.1. TLSv1.0 and TLSv1.1 are vulnerable to POODLE, "
                "BEAST, and other attacks.",
            ),
        ),
    )


def test_a_configuration_without_a_finding() -> None:
    assert findings.gixy("[]\n") == Verdict("nothing found")


@pytest.mark.parametrize(
    ("read", "output", "told"),
    [
        (findings.sslyze, " => ERROR: Could not connect\n", "sslyze came to no verdict"),
        (findings.testssl, "[]", "testssl.sh gave no grade"),
        (findings.testssl, "", "testssl.sh printed no JSON"),
        (findings.gixy, "Configuration error", "gixy-ng printed no JSON"),
    ],
)
def test_no_verdict_is_no_good_verdict(read: object, output: str, told: str) -> None:
    assert callable(read)
    with pytest.raises(Stop, match=told):
        read(output)


def test_only_what_is_accepted_by_name_passes() -> None:
    verdict = findings.gixy(LINTED)
    assert findings.refused(verdict, {"weak_ssl_tls in nginx.conf": "The servers set their own."}) == [
        TRY_FILES
    ]
    assert findings.refused(verdict, {"weak_ssl_tls": "", "try_files_is_evil_too": ""}) == [
        verdict.findings[1]
    ]
    assert findings.refused(Verdict("A+ (96)", (Finding("CAA", "low", "none"),)), {}) == []


def test_the_pages_say_what_was_found_where_and_why_it_is_accepted(tmp_path: Path) -> None:
    targets = [
        Target(
            "nginx-bookworm", "", "", "12.15", "nginx 1.22.1", "3.0.22", {"gixy-ng": findings.gixy(LINTED)}
        ),
        Target(
            "nginx-trixie",
            "",
            "",
            "13.7",
            "nginx 1.26.3",
            "3.5.7",
            {"gixy-ng": Verdict("1 medium", (TRY_FILES,)), "sslyze": findings.sslyze(COMPLIANT)},
        ),
    ]
    versions = {"sslyze": "sslyze 6.3.1", "testssl.sh": "testssl.sh 3.2.1", "gixy-ng": "gixy-ng 0.2.59"}
    accepted = {"gixy-ng": {"try_files_is_evil_too": "Files move with the release."}}
    audit_pages.write(targets, versions, accepted, "2026-11-21", tmp_path)

    overview = (tmp_path / "README.md").read_text()
    assert "said on 2026-11-21 of the sites" in overview
    assert "| nginx 1.22.1 | 12.15 | 3.0.22 | - | - | 1 high, 1 medium; 1 not accepted |\n" in overview
    assert "| nginx 1.26.3 | 13.7 | 3.5.7 | compliant | - | 1 medium; 1 accepted |\n" in overview
    page = (tmp_path / "gixy.md").read_text()
    assert "| nginx 1.26.3 | 13.7 | 3.5.7 | 1 medium |\n" in page
    assert (
        "**try\\_files\\_is\\_evil\\_too**\n\n"
        "* medium, everywhere: The try\\_files directive introduces performance overhead without "
        "open\\_file\\_cache\n\n"
        "Accepted: Files move with the release.\n"
    ) in page
    assert "* high, nginx-bookworm: Insecure protocols enabled: TLSv1, TLSv1.1." in page
    assert page.count("**Not accepted.**\n") == 1
    assert "| nginx" not in (tmp_path / "testssl.md").read_text()
