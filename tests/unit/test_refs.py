from __future__ import annotations

import pytest

from runner.adapters.git_refs import Advertised, check_name
from runner.errors import RefRefused
from runner.model import Ref, RefKind

A, B, C = "a" * 40, "b" * 40, "c" * 40

HOSTILE = [
    "",
    "-x",
    "--upload-pack=touch pwned",
    "--upload-pack=touch${IFS}pwned",
    "@{-1}",
    "@",
    "main@{1}",
    "a..b",
    "HEAD^{/x}",
    "main~1",
    "main^",
    ":/fix",
    "main:seatrial.yml",
    "a b",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a\tb",
    "a*",
    "a?",
    "a[b",
    "a\\b",
    "refs/../main",
    "../main",
    "/main",
    "main/",
    "a//b",
    ".a",
    "a/.b",
    "a.lock",
    "a.lock/b",
    "a.",
    "x" * 256,
    "\ud800",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_impossible_names_are_refused_with_field_value_and_remedy(name: str) -> None:
    with pytest.raises(RefRefused) as caught:
        check_name(name)
    assert caught.value.field == "ref"
    assert caught.value.value is not None
    caught.value.value.encode()
    assert caught.value.remedy in caught.value.text
    assert caught.value.text.isascii()
    assert "\0" not in caught.value.text


@pytest.mark.parametrize(
    "name",
    ["main", "a/b", "release-1.2", "שלום", "\u202egnp.exe", "🚢/⚓", "x" * 255, "refs/pull/7/head", "a-", "{a}", "a@b"],
)
def test_possible_names_pass_however_odd(name: str) -> None:
    assert check_name(name) == name


def test_advertised_refs_are_read_and_tags_peeled() -> None:
    output = f"{A}\tHEAD\n{A}\trefs/heads/main\n{B}\trefs/tags/v1\n{C}\trefs/tags/v1^{{}}\ngarbage\n".encode()
    assert Advertised.parse(output).refs == {"refs/heads/main": A, "refs/tags/v1": C}


def test_branch_wins_over_tag_and_full_names_say_which() -> None:
    advertised = Advertised({"refs/heads/x": A, "refs/tags/x": B})
    assert advertised.find("x") == Ref("x", RefKind.BRANCH, A)
    tag = advertised.find("refs/tags/x")
    assert tag == Ref("refs/tags/x", RefKind.TAG, B)
    assert advertised.find(tag.name) == tag


def test_a_full_name_wins_over_a_branch_of_that_name() -> None:
    advertised = Advertised({"refs/heads/refs/heads/x": A, "refs/heads/x": B})
    assert advertised.find("refs/heads/x") == Ref("x", RefKind.BRANCH, B)
    assert advertised.ref("refs/heads/refs/heads/x").name == "refs/heads/refs/heads/x"


@pytest.mark.parametrize("name", ["X", "x/", "heads/x", "HEAD", "x^{}"])
def test_only_exact_names_are_found(name: str) -> None:
    assert Advertised({"refs/heads/x": A}).find(name) is None


def test_pull_requests_have_their_kind() -> None:
    assert Advertised({"refs/pull/7/head": A}).find("refs/pull/7/head") == Ref("refs/pull/7/head", RefKind.PULL, A)
