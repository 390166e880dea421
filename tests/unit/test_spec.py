from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from runner.errors import BranchError, Problem, SpecError
from runner.spec import Spec, parse_spec, spec_json_schema

DOCS = Path(__file__).parents[2] / "docs"

LEAST = "version: 1\nworkspace: {image: ruby:3.3}\nrun: bin/export\n"

WHOLE = """\
version: 1
workspace:
  image: ruby:3.3                 # or build: {dockerfile: Dockerfile}
  limits: {cpus: 2, memory: 4g, pids: 512, disk: 10g, log: 1g}
  env: {RAILS_ENV: production}
database: {source: verification}
setup:   ["bin/prepare"]
migrate: ["bin/rails db:migrate"]
units: bin/list-units
run:   bin/export
timeouts: {run: 6h, stall: 20m}
compare:
  rules:
    - match: "*/pl"
      key: [account, month]
      tolerance: {absolute: 0.005}
      ignore: [generated_at]
  latency: {ratio: 1.5, floor: 100ms}
"""


def parse(text: str | bytes) -> Spec:
    return parse_spec(text, source="seatrial.yml of 3f2a91c")


def refused(text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert caught.value.code == "spec_invalid"
    assert isinstance(caught.value, BranchError)
    assert str(caught.value).startswith("seatrial.yml of 3f2a91c is not valid:\n")
    for problem in caught.value.problems:
        assert str(problem) in str(caught.value)
    return caught.value.problems


def test_a_whole_spec_is_read() -> None:
    spec = parse(WHOLE)
    assert spec.workspace.image == "ruby:3.3"
    assert spec.workspace.limits.memory == 4 << 30
    assert spec.workspace.env == {"RAILS_ENV": "production"}
    assert spec.database is not None
    assert spec.database.source == "verification"
    assert (spec.setup, spec.migrate) == (("bin/prepare",), ("bin/rails db:migrate",))
    assert (spec.units, spec.run, spec.resume) == ("bin/list-units", "bin/export", None)
    assert (spec.timeouts.run, spec.timeouts.stall) == (21_600, 1_200)
    rule = spec.compare.rules[0]
    assert (rule.match, rule.key, rule.tolerance.absolute, rule.ignore) == (
        "*/pl",
        ("account", "month"),
        0.005,
        ("generated_at",),
    )
    assert (spec.compare.latency.ratio, spec.compare.latency.floor) == (1.5, 0.1)


def test_what_is_left_out_has_its_default() -> None:
    spec = parse(LEAST)
    limits = spec.workspace.limits
    assert (limits.cpus, limits.memory, limits.pids, limits.disk) == (2, 4 << 30, 512, 10 << 30)
    assert (limits.log, limits.file, limits.units) == (1 << 30, 4 << 30, 250_000)
    assert (spec.database, spec.units, spec.resume, spec.setup, spec.migrate) == (None, None, None, (), ())
    assert (spec.timeouts.setup, spec.timeouts.migrate) == (3_600, 3_600)
    assert (spec.timeouts.run, spec.timeouts.stall) == (21_600, 1_200)
    assert (spec.compare.rules, spec.compare.fail_fast, spec.compare.noise) == ((), None, 1)


def test_build_takes_the_place_of_an_image() -> None:
    spec = parse("version: 1\nworkspace: {build: {dockerfile: ./docker/Dockerfile, args: {RUBY: '3.3'}}}\nrun: x\n")
    assert spec.workspace.image is None
    assert spec.workspace.build is not None
    assert (spec.workspace.build.dockerfile, spec.workspace.build.context) == ("docker/Dockerfile", ".")
    assert spec.workspace.build.args == {"RUBY": "3.3"}


def test_setup_and_migrate_may_be_a_single_command() -> None:
    spec = parse(LEAST + "setup: bin/prepare\nmigrate: bin/migrate\n")
    assert (spec.setup, spec.migrate) == (("bin/prepare",), ("bin/migrate",))


def test_units_may_be_listed() -> None:
    assert parse(LEAST + "units: [tenant_1/pl, tenant_1/bs]\n").units == ("tenant_1/pl", "tenant_1/bs")


def test_a_script_without_units_may_resume_by_itself() -> None:
    assert parse(LEAST + 'resume: bin/export --from "$X"\n').resume == 'bin/export --from "$X"'


def test_yaml_is_read_as_version_1_2() -> None:
    spec = parse(LEAST.replace("ruby:3.3}", "ruby:3.3, env: {A: no, B: 2026-11-21, C: 0o17x, D: 'yes'}}"))
    assert spec.workspace.env == {"A": "no", "B": "2026-11-21", "C": "0o17x", "D": "yes"}


def test_anchors_and_a_byte_order_mark_are_understood() -> None:
    spec = parse(b"\xef\xbb\xbf" + (LEAST + "setup: &same [a, b]\nmigrate: *same\n").encode())
    assert spec.setup == spec.migrate == ("a", "b")


def test_a_spec_cannot_be_changed() -> None:
    spec = parse(LEAST)
    with pytest.raises(ValueError, match="frozen"):
        spec.run = "other"


@pytest.mark.parametrize(
    "image",
    [
        "ruby",
        "ruby:3.3",
        "seatrial/base:bookworm",
        "registry.example.com:5000/team/app:1.2-rc_1",
        "localhost/app",
        "[::1]:5000/app",
        "a/b__c/d--e:X",
        "app@sha256:" + "a" * 64,
        "app:1@sha256:" + "0" * 64,
    ],
)
def test_image_names_are_those_of_docker(image: str) -> None:
    assert parse(f"version: 1\nworkspace: {{image: '{image}'}}\nrun: x\n").workspace.image == image


# Each row: the text that is wrong, the line and key that are named, the value that is shown, the remedy.
WORKSPACE = "version: 1\nrun: x\nworkspace:\n  image: ruby:3.3\n  "
BAD = [
    # the document
    ("", None, "version", None, "is required; allowed: 1"),
    ("# nothing\n", None, "run", None, "is required"),
    ("- a\n", 1, "(file)", "a list of 1", "begin with `version: 1`"),
    ("just text\n", 1, "(file)", "'just text'", "begin with `version: 1`"),
    ("version: 1\nrun: a: b\n", 2, "(syntax)", None, "mapping values are not allowed"),
    ("version: 1\n\trun: a\n", 2, "(syntax)", None, "is not YAML"),
    ("a: [1, 2\n", 2, "(syntax)", None, "expected ',' or ']'"),
    ("a: \x01\n", None, "(syntax)", None, "U+0001"),
    ("version: 1\nrun: a\0b\n", 2, "(file)", None, "NUL"),
    ('version: 1\nrun: "a\\0b"\n', 2, "(syntax)", None, "U+0000"),
    ('version: 1\nrun: "\\ud800"\n', 2, "(syntax)", None, "U+D800"),
    (b"version: 1\nrun: \xff\n", 2, "(file)", None, "save the file as UTF-8"),
    ("version: 1\xa0" + "x" * (256 * 1024), None, "(file)", "262,156 bytes", "at most 256 KiB"),
    ("run: a\nrun: b\n", 2, "run", None, "first on line 1: keep one"),
    ("workspace: {image: a, image: b}\n", 1, "workspace.image", None, "keep one"),
    ("version: !!int 1\n", 1, "(syntax)", None, "tags are not allowed: remove"),
    ("run: !!python/object/apply:os.system [id]\n", 1, "(syntax)", None, "tags are not allowed: remove"),
    ("!!str version: 1\n", 1, "(syntax)", None, "plain word"),
    ("%YAML 1.1\n---\nversion: 1\n", 2, "(syntax)", None, "directives are not allowed"),
    ("version: 1\n---\nrun: x\n", 2, "(syntax)", None, "only one is allowed"),
    ("a: &a {x: 1}\nb: {<<: *a}\n", 2, "(syntax)", None, "write the keys out"),
    ("a: *nowhere\n", 1, "(syntax)", None, "no anchor `&nowhere`"),
    ("a: &a [*a]\n", 1, "(syntax)", None, "part of what it stands for"),
    ("? [a]\n: b\n", 1, "(syntax)", None, "plain word"),
    ("a: " + "[" * 200_000, 1, "(syntax)", None, "at most 20 levels"),
    ("a: " + "{b: " * 30, 1, "(syntax)", None, "at most 20 levels"),
    ("a: [" + "1," * 60_000 + "]\n", 1, "(syntax)", None, "at most 50,000"),
    # the top
    ("version: 2\n", 1, "version", "2", "must be 1"),
    ("version: '1'\n", 1, "version", "'1'", "must be 1"),
    ("version: true\n", 1, "version", "true", "must be 1"),
    ("version: 1.0\n", 1, "version", "1.0", "must be 1"),
    ("workspaces: {}\n", 1, "workspaces", "a table of 0", "did you mean `workspace`?"),
    ("Run: x\n", 1, "Run", "'x'", "did you mean `run`?"),
    ("quux: x\n", 1, "quux", "'x'", "allowed here: version, workspace, database"),
    ("run: [a]\n", 1, "run", "a list of 1", "must be text"),
    ("run: 5\n", 1, "run", "5", "put the value in quotes"),
    ("run:\n", 1, "run", None, "is empty: give it a value or leave the key out"),
    ("run: ' '\n", 1, "run", "' '", "is an empty command"),
    (f"run: {'x' * 70_000}\n", 1, "run", "xxx…", "at most 65,536 bytes"),
    ("setup: [a, '']\n", 1, "setup[1]", "''", "is an empty command"),
    ("setup:\n  - a\n  - 5\n", 3, "setup[1]", "5", "put the value in quotes"),
    ("setup: {a: b}\n", 1, "setup", "a table of 1", "a text or a list of texts"),
    ("migrate: false\n", 1, "migrate", "false", "a text or a list of texts"),
    ("units: []\n", 1, "units", "a list of 0", "name at least one unit"),
    ("units: [a, b, a]\n", 1, "units", "a list of 3", "'a' is listed twice: keep one"),
    ("units:\n  - a\n  - ../b\n", 3, "units[1]", "'../b'", "write names such as tenant_042/pl"),
    ("units: [/etc/passwd]\n", 1, "units[0]", "'/etc/passwd'", "leave out the leading /"),
    ("units: [7]\n", 1, "units[0]", "7", "put the value in quotes"),
    ("units: {a: b}\n", 1, "units", "a table of 1", "must be text"),
    ("units: a\nresume: b\n", 2, "resume", None, "leave out `resume` or `units`"),
    (
        "version: 1\nrun: x\nunits: [a, b]\nworkspace: {image: a, limits: {units: 1}}\n",
        3,
        "units",
        "2 units",
        "raise the limit or list fewer",
    ),
    # workspace
    ("workspace: ruby\n", 1, "workspace", "'ruby'", "with the keys image, build, limits, env"),
    ("workspace:\n  env: {}\n", 1, "workspace.image", None, "write `image: NAME` or `build:"),
    ("workspace:\n  image: a\n  build: {dockerfile: b}\n", 3, "workspace.build", None, "keep the one that is meant"),
    ("workspace: {image: -v}\n", 1, "workspace.image", "'-v'", "ruby:3.3"),
    ("workspace: {image: 'a b'}\n", 1, "workspace.image", "'a b'", "ruby:3.3"),
    ("workspace: {image: Ruby}\n", 1, "workspace.image", "'Ruby'", "ruby:3.3"),
    ("workspace: {image: 'a:b:c'}\n", 1, "workspace.image", "'a:b:c'", "ruby:3.3"),
    ("workspace: {image: 'ruby:3.3\\n'}\n", 1, "workspace.image", "'ruby:3.3", "ruby:3.3"),
    ("workspace: {build: {}}\n", 1, "workspace.build.dockerfile", None, "is required"),
    ("workspace: {build: Dockerfile}\n", 1, "workspace.build", "'Dockerfile'", "dockerfile, context, args"),
    ("workspace: {build: {dockerfile: /etc/x}}\n", 1, "workspace.build.dockerfile", "'/etc/x'", "no leading `/`"),
    ("workspace: {build: {dockerfile: a/../../x}}\n", 1, "workspace.build.dockerfile", "'a/../../x'", "no `..`"),
    ("workspace: {build: {dockerfile: ''}}\n", 1, "workspace.build.dockerfile", "''", "is not a path"),
    ("workspace: {build: {dockerfile: a, context: ..}}\n", 1, "workspace.build.context", "'..'", "no `..`"),
    ("workspace: {build: {dockerfile: a, context: ~/x}}\n", 1, "workspace.build.context", "'~/x'", "no leading"),
    ("workspace: {build: {dockerfile: a, args: {1x: b}}}\n", 1, "workspace.build.args.1x", "'1x'", "no digit first"),
    ("workspace: {build: {dockerfile: a, args: {X: 3.3}}}\n", 1, "workspace.build.args.X", "3.3", "in quotes"),
    (WORKSPACE + "limits: {cpus: 0}\n", 5, "workspace.limits.cpus", "0", "from 0.1 to 64"),
    (WORKSPACE + "limits: {cpus: 65}\n", 5, "workspace.limits.cpus", "65", "from 0.1 to 64"),
    (WORKSPACE + "limits: {cpus: '2'}\n", 5, "workspace.limits.cpus", "'2'", "must be a number"),
    (WORKSPACE + "limits: {cpus: .inf}\n", 5, "workspace.limits.cpus", "inf", "finite"),
    (WORKSPACE + "limits: {cpus: true}\n", 5, "workspace.limits.cpus", "true", "must be a number"),
    (WORKSPACE + "limits: {memory: 15m}\n", 5, "workspace.limits.memory", "'15m'", "16m to 64t"),
    (WORKSPACE + "limits: {memory: lots}\n", 5, "workspace.limits.memory", "'lots'", "write it as 512m"),
    (WORKSPACE + "limits: {memory: -1}\n", 5, "workspace.limits.memory", "-1", "16m to 64t"),
    (WORKSPACE + "limits: {memory: 1000000000000000}\n", 5, "workspace.limits.memory", "10000", "16m to 64t"),
    (WORKSPACE + "limits: {pids: 1}\n", 5, "workspace.limits.pids", "1", "from 16 to 1,000,000"),
    (WORKSPACE + "limits: {pids: 20.5}\n", 5, "workspace.limits.pids", "20.5", "whole number"),
    (WORKSPACE + "limits: {disk: 0}\n", 5, "workspace.limits.disk", "0", "1m to 64t"),
    (WORKSPACE + "limits: {log: 1.5}\n", 5, "workspace.limits.log", "1.5", "is not a size"),
    (WORKSPACE + "limits: {file: 4 gb x}\n", 5, "workspace.limits.file", "'4 gb x'", "is not a size"),
    (WORKSPACE + "limits: {units: 0}\n", 5, "workspace.limits.units", "0", "from 1 to 10,000,000"),
    (WORKSPACE + "limits: {cpu: 2}\n", 5, "workspace.limits.cpu", "2", "did you mean `cpus`?"),
    (WORKSPACE + "env: {SEATRIAL_RUN: x}\n", 5, "workspace.env.SEATRIAL_RUN", None, "is reserved"),
    (WORKSPACE + "env: {DATABASE_URL: x}\n", 5, "workspace.env.DATABASE_URL", None, "leave it out"),
    (WORKSPACE + "env: {PGOPTIONS: x}\n", 5, "workspace.env.PGOPTIONS", None, "leave it out"),
    (WORKSPACE + "env: {HOME: x}\n", 5, "workspace.env.HOME", None, "leave it out"),
    (WORKSPACE + "env: {A-B: x}\n", 5, "workspace.env.A-B", "'A-B'", "letters, digits and `_`"),
    (WORKSPACE + "env: {'': x}\n", 5, "workspace.env.", "''", "letters, digits and `_`"),
    (WORKSPACE + "env: {PORT: 5}\n", 5, "workspace.env.PORT", "5", "put the value in quotes"),
    (WORKSPACE + f"env: {{A: {'x' * 40_000}}}\n", 5, "workspace.env.A", "xxx…", "at most 32,768 characters"),
    (WORKSPACE + "env: [A]\n", 5, "workspace.env", "a list of 1", "a table of names to values"),
    # database
    ("database: verification\n", 1, "database", "'verification'", "with the keys source, tcp, clone_per"),
    ("database: {}\n", 1, "database.source", None, "is required"),
    ("database: {source: 'A b'}\n", 1, "database.source", "'A b'", "lower-case letters"),
    ("database: {source: a, tcp: no}\n", 1, "database.tcp", "'no'", "true or false"),
    ("database: {source: a, clone_per: run}\n", 1, "database.clone_per", "'run'", "execution or leg"),
    # timeouts
    ("timeouts: {run: '0'}\n", 1, "timeouts.run", "'0'", "allowed is 1s to 30d"),
    ("timeouts: {run: 0}\n", 1, "timeouts.run", "0", "allowed is 1s to 30d"),
    ("timeouts: {run: 0s}\n", 1, "timeouts.run", "'0s'", "1s to 30d"),
    ("timeouts: {run: -1}\n", 1, "timeouts.run", "-1", "allowed is 1s to 30d"),
    ("timeouts: {run: 1000000000000}\n", 1, "timeouts.run", "1000000000000", "allowed is 1s to 30d"),
    ("timeouts: {run: 1000000000000s}\n", 1, "timeouts.run", "'1000000000000s'", "1s to 30d"),
    ("timeouts: {run: 90}\n", 1, "timeouts.run", "90", "write it as 90s"),
    ("timeouts: {stall: 31d}\n", 1, "timeouts.stall", "'31d'", "1s to 30d"),
    ("timeouts: {setup: soon}\n", 1, "timeouts.setup", "'soon'", "write it as 90s"),
    ("timeouts: {migrate: 999ms}\n", 1, "timeouts.migrate", "'999ms'", "1s to 30d"),
    ("timeouts: {stal: 1m}\n", 1, "timeouts.stal", "'1m'", "did you mean `stall`?"),
    # compare
    ("compare: []\n", 1, "compare", "a list of 0", "rules, latency, fail_fast, noise"),
    ("compare: {rules: {}}\n", 1, "compare.rules", "a table of 0", "must be a list"),
    ("compare:\n  rules:\n    - {key: a}\n", 3, "compare.rules[0].match", None, "is required"),
    ("compare: {rules: [{match: ''}]}\n", 1, "compare.rules[0].match", "''", "1 to 1,000 characters"),
    ("compare: {rules: [{match: a, key: 5}]}\n", 1, "compare.rules[0].key", "5", "a text or a list of texts"),
    ("compare: {rules: [{match: a, ignore: [1]}]}\n", 1, "compare.rules[0].ignore[0]", "1", "in quotes"),
    ("compare: {rules: [{match: a, order: 1}]}\n", 1, "compare.rules[0].order", "1", "true or false"),
    (
        "compare: {rules: [{match: a, tolerance: {absolute: -0.1}}]}\n",
        1,
        "compare.rules[0].tolerance.absolute",
        "-0.1",
        "0 or more",
    ),
    (
        "compare: {rules: [{match: a, tolerance: {relative: .nan}}]}\n",
        1,
        "compare.rules[0].tolerance.relative",
        "nan",
        "finite",
    ),
    ("compare: {latency: {ratio: 0.5}}\n", 1, "compare.latency.ratio", "0.5", "from 1 to 1,000"),
    ("compare: {latency: {floor: 100}}\n", 1, "compare.latency.floor", "100", "0s to 30d"),
    ("compare: {fail_fast: 0}\n", 1, "compare.fail_fast", "0", "from 1 to"),
    ("compare: {fail_fast: yes}\n", 1, "compare.fail_fast", "'yes'", "whole number"),
    ("compare: {noise: 3}\n", 1, "compare.noise", "3", "from 1 to 2"),
]


@pytest.mark.parametrize(
    ("text", "line", "key", "value", "remedy"), BAD, ids=[f"{row[2]}-{i}" for i, row in enumerate(BAD)]
)
def test_bad_input_is_named(text: str | bytes, line: int | None, key: str, value: str | None, remedy: str) -> None:
    problems = {problem.key: problem for problem in refused(text) if line is None or problem.line == line}
    assert key in problems
    problem = problems[key]
    assert remedy in problem.message
    assert problem.line == line
    assert value is None or value.rstrip("…") in (problem.value or "")
    assert len(str(problem)) < 500


def test_all_problems_are_told_at_once_in_the_order_of_lines() -> None:
    problems = refused(
        "version: 1\n"
        "workspace:\n"
        "  image: -x\n"
        "  limits: {cpus: 100, memory: 1}\n"
        "databse: {source: a}\n"
        "units: a\n"
        "resume: b\n"
        "timeouts: {run: 1}\n"
    )
    assert [(problem.line, problem.key) for problem in problems] == [
        (None, "run"),
        (3, "workspace.image"),
        (4, "workspace.limits.cpus"),
        (4, "workspace.limits.memory"),
        (5, "databse"),
        (7, "resume"),
        (8, "timeouts.run"),
    ]
    assert problems[2].column == 12


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]")
    (problem,) = refused("\n".join(lines))
    assert "at most 50,000" in problem.message


def test_the_digest_is_of_the_meaning() -> None:
    spec = parse(LEAST)
    same = parse(
        '# other\nrun: "bin/export"\nworkspace:\n  limits: {memory: 4096m, cpus: 2.0}\n  image: ruby:3.3\nversion: 1\n'
    )
    assert spec == same
    assert spec.digest() == same.digest()
    assert len(spec.digest()) == 64
    others = [LEAST + "timeouts: {run: 5h}\n", LEAST + "setup: a\n", LEAST.replace("export", "exporT")]
    assert len({spec.digest(), *(parse(other).digest() for other in others)}) == 4


@pytest.mark.parametrize(
    "text", [LEAST, WHOLE, LEAST + "units: [a, b/c]\n", LEAST + "resume: é\ncompare: {fail_fast: 3}\n"]
)
def test_the_canonical_text_reads_back(text: str) -> None:
    spec = parse(text)
    assert Spec.from_canonical(spec.canonical()) == spec
    assert parse(spec.canonical()) == spec
    assert Spec.from_canonical(spec.canonical()).digest() == spec.digest()


_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=40
).filter(str.strip)


@given(
    commands=st.lists(_TEXT, max_size=3),
    env=st.dictionaries(st.from_regex(r"[A-OQ-Z][A-GI-Z_0-9]{0,8}", fullmatch=True), _TEXT, max_size=3),
    seconds=st.floats(min_value=1, max_value=30 * 86_400),
    memory=st.integers(16 << 20, 64 << 40),
)
def test_any_spec_survives_its_canonical_text(
    commands: list[str], env: dict[str, str], seconds: float, memory: int
) -> None:
    content = {
        "version": 1,
        "workspace": {"image": "a", "env": env, "limits": {"memory": memory}},
        "run": "x",
        "setup": commands,
        "timeouts": {"run": f"{seconds:.6f}s"},
    }
    spec = Spec.from_canonical(json.dumps(content))
    again = Spec.from_canonical(spec.canonical())
    assert again == spec
    assert again.digest() == spec.digest()
    assert (again.setup, again.workspace.env, again.workspace.limits.memory) == (tuple(commands), env, memory)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    problems: tuple[Problem, ...] | None = None
    try:
        parse(text)
    except SpecError as error:
        problems = error.problems
    assert problems != ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(list(Spec.model_fields)), _JSON)
def test_any_value_of_any_key_is_read_or_refused_with_its_key(key: str, value: object) -> None:
    content = {"version": 1, "workspace": {"image": "a"}, "run": "x", key: value}
    problems: tuple[Problem, ...] = ()
    try:
        parse(json.dumps(content))
    except SpecError as error:
        problems = error.problems
    assert all(problem.key.startswith((key, "(syntax)", "resume")) for problem in problems)


# ---- the schema --------------------------------------------------------------------------------------------


def test_the_published_schema_is_up_to_date() -> None:
    text = (DOCS / "spec.schema.json").read_text("utf-8")
    assert json.loads(text) == spec_json_schema(), "run `python docs/schemas.py`"


@pytest.mark.parametrize("text", [LEAST, WHOLE, LEAST + "units: [a]\nsetup: x\n", LEAST + "resume: x\n"])
def test_the_schema_accepts_what_is_right(text: str) -> None:
    validator = jsonschema_rs.Draft202012Validator(spec_json_schema())
    assert validator.is_valid(YAML(typ="safe", pure=True).load(text))


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nrun: x\n",
        "version: 2\nworkspace: {image: a}\nrun: x\n",
        "version: 1\nworkspace: {image: a, build: {dockerfile: b}}\nrun: x\n",
        "version: 1\nworkspace: {}\nrun: x\n",
        LEAST + "units: a\nresume: b\n",
        LEAST + "timeouts: {run: 90}\n",
        LEAST + "timeouts: {run: ''}\n",
        LEAST + "timeouts: {runs: 1s}\n",
        LEAST + "setup:\n",
        LEAST + "compare: {noise: 0}\n",
    ],
)
def test_the_schema_refuses_what_is_wrong(text: str) -> None:
    validator = jsonschema_rs.Draft202012Validator(spec_json_schema())
    assert not validator.is_valid(YAML(typ="safe", pure=True).load(text))
