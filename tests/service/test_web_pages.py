"""The pages as a browser without scripts gets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from web_site import Site

from jobs.run import TaskState
from jobs.submission import Submission
from runner.model import Reason


def page(client: FlaskClient, path: str, status: int = 200, **options: object) -> str:
    answer = client.get(path, **options)  # type: ignore[arg-type]
    assert answer.status_code == status, path
    return answer.get_data(as_text=True)


def plain_lines(text: str) -> list[str]:
    return re.sub("<[^>]*>", "", text).split("\n")


def token(client: FlaskClient, path: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page(client, path))
    assert found is not None
    return found[1]


def test_an_empty_list_teaches(client: FlaskClient) -> None:
    assert client.get("/").headers["Location"] == "/runs"
    text = page(client, "/runs")
    assert "seatrial submit PROJECT BRANCH" in text
    assert 'href="/new"' in text
    assert "No run matches" in page(client, "/runs?state=failed")


def test_the_list_shows_states_in_words_with_reasons(site: Site, client: FlaskClient) -> None:
    site.worker()
    site.failed(note="What it touches")
    site.submit("main")
    text = page(client, "/runs")
    for words in (
        "Failed",
        "1 of 2 units failed: tenant_001/bs",
        "Queued",
        "What it touches",
        "1 of 2 units, 1 failed",
    ):
        assert words in text
    assert page(client, "/runs?state=failed").count("<tr id=") == 1
    assert page(client, "/runs?state=passed").count("<tr id=") == 0
    assert page(client, "/runs?state=nonsense", 422)


def test_your_runs_come_first_when_there_are_others(site: Site, client: FlaskClient) -> None:
    mine = site.submit("main")
    assert "Your runs" not in page(client, "/runs")
    for _ in range(60):
        site.service.submit(Submission("accounts", "main"), user="rin")
    text = page(client, "/runs")
    assert text.index("Your runs") < text.index(f'id="mine-{mine.id}"') < text.index("All runs")
    assert f'id="run-{mine.id}"' not in text  # others have pushed it to the second page
    assert "Your runs" not in page(client, "/runs?user=rin")
    assert page(client, "/runs/mine").count("<tr id=") == 1


def test_the_form_counts_the_units_that_a_filter_chooses(site: Site, client: FlaskClient) -> None:
    assert "unknown until the first run" in page(client, "/new/units?project=accounts&ref=main")
    site.submit("main")
    site.prepare(["a/pl", "a/bs", "b/pl"])
    address = "/new/units?project=accounts&ref=main"
    assert '<b class="figures">2</b> of the 3 units of <a href="/runs/1">run #1</a>: a/pl, b/pl' in page(
        client, f"{address}&units=*/pl"
    )
    assert "None of the 3 units" in page(client, f"{address}&units=*/cash")
    assert '<b class="figures">3</b> units, if they are those of' in page(client, address)
    assert "no project" in page(client, "/new/units?project=gone")
    assert "not valid" in page(client, f"{address}&units={'x' * 2_001}")
    found = client.get("/api/v1/projects/accounts/units?filter=b/*").json
    assert found == {"run": 1, "ref": "main", "total": 3, "matching": 1, "first": ["b/pl"]}
    assert client.get("/api/v1/projects/plain/units").json["matching"] is None
    assert client.get("/api/v1/projects/gone/units").status_code == 404


def test_the_list_is_paged_and_counts_what_came_since(site: Site, client: FlaskClient) -> None:
    for _ in range(51):
        site.submit("main")
    text = page(client, "/runs?project=accounts")
    older = re.search(r'rel="next" href="([^"]+)"', text)
    assert older is not None
    assert page(client, older[1].replace("&amp;", "&")).count("<tr id=") == 1
    assert "2 new" in page(client, "/runs/newer?after=49&project=accounts")
    assert page(client, "/runs/newer?after=51").strip() == ""
    part = page(client, "/runs", headers={"HX-Request": "true"})
    assert "<html" not in part
    assert "<html" in page(client, "/runs", headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})


def test_a_run_page_answers_first(site: Site, client: FlaskClient) -> None:
    run = site.failed()
    text = page(client, f"/runs/{run.id}")
    assert f"<title>Failed · run {run.id} · feature/rounding</title>" in text
    assert "/icons/failed.svg" in text
    assert "Resume — 1 unit left" in text
    assert "Unit tenant_001/bs failed" in text
    assert "KeyError: amount (ledger.rb:42)" in text
    assert text.index("KeyError") < text.index("Steps") < text.index("Details")
    for step in ("checkout", "clone", "template, reflink", "migrate"):
        assert step in text
    assert "\x1b" not in text
    assert "The end of the log" in text, "nothing in it says where the unit was marked"


def test_a_failed_unit_shows_its_log_where_it_was_marked(site: Site, client: FlaskClient) -> None:
    """The batch went on for long, in another container too."""
    before = b"".join(b"before %d\n" % n for n in range(30))
    after = b"".join(b"after %d\n" % n for n in range(30))
    place = b"seatrial: unit tenant_001/bs failed\n"
    again = b"seatrial: unit tenant_001/bs failed twice\n"
    run = site.failed(log=place + before + place + again + after)
    text = page(client, f"/runs/{run.id}")
    excerpt = text[text.index('<pre class="excerpt"') : text.index("The log at this place")]
    shown = [line for line in plain_lines(excerpt.split("</pre>")[0]) if line]
    assert len(shown) == 20
    assert shown[0].endswith("before 15")
    assert shown[15].endswith("seatrial: unit tenant_001/bs failed")
    assert shown[-1].endswith("after 2")
    assert "#L34" in excerpt, "the line itself"


def test_every_tab_has_its_address(site: Site, client: FlaskClient) -> None:
    run = site.failed()
    tasks = site.service.tasks(run.id)
    assert "tenant_001/pl" in page(client, f"/runs/{run.id}?tab=units")
    assert "tenant_001/pl" not in page(client, f"/runs/{run.id}?tab=units&state=failed")
    assert "exporting" in page(client, f"/runs/{run.id}?tab=log")
    assert "Round: migrated" in page(client, f"/runs/{run.id}?tab=log&task={tasks[0].id}")
    assert 'id="L2"' in page(client, f"/runs/{run.id}?tab=log&task={tasks[1].id}&line=2")
    assert "There is no" in page(client, f"/runs/{run.id + 1}?tab=log", 404)
    assert "has no task 999" in page(client, f"/runs/{run.id}?tab=log&task=999", 404)
    assert "host-a/1" in page(client, f"/runs/{run.id}?tab=attempts")
    assert "outputs.zip" in page(client, f"/runs/{run.id}?tab=files")
    assert page(client, f"/runs/{run.id}?tab=odd", 422)


def test_an_interrupted_run_says_when_it_goes_on(site: Site, client: FlaskClient) -> None:
    run = site.submit()
    site.prepare([f"t{n}" for n in range(10)], batches=1)
    claim = site.claim()
    site.mark(claim, claim.units[:4])
    site.store.tasks.interrupt(claim.task.id, claim.task.attempt, Reason("database_lost", "The connection dropped."))
    text = page(client, f"/runs/{run.id}")
    assert "The connection dropped." in text
    assert "Resume now — 6 units left" in text
    assert "Next try" in text
    assert "That will be attempt 2 of batch 1; attempt 1 was on host-a. 4 of 10 units are safe" in text


def test_a_queued_run_names_the_runs_that_it_waits_for(site: Site, client: FlaskClient) -> None:
    first = site.submit()
    waiting = site.submit()
    assert "No worker of pool local is running." in page(client, f"/runs/{waiting.id}")
    site.worker()
    # Whether it or the run before it is taken is not known yet.
    assert "A slot of pool local is about to take work; 2 tasks wait for it." in page(client, f"/runs/{waiting.id}")
    site.claim()
    link = f'<a href="/runs/{first.id}">#{first.id}</a>'
    assert f"The only slot of pool local is busy with {link}." in page(client, f"/runs/{waiting.id}")
    found = client.get(f"/api/v1/runs/{waiting.id}").json["waiting"]
    assert found == {
        "code": "slots_busy",
        "text": f"The only slot of pool local is busy with #{first.id}.",
        "until": None,
    }
    assert client.get(f"/api/v1/runs/{first.id}").json["waiting"] is None


def test_attempts_say_what_was_repeated(site: Site, client: FlaskClient) -> None:
    run = site.submit()
    site.prepare(["a", "b", "c"], batches=1)
    claim = site.claim()
    ledger = site.store.ledger
    ledger.execution(claim.task.id, 1, 1, state="running", container="c1", exit_code=None)
    site.mark(claim, ["a"])
    ledger.execution(claim.task.id, 1, 1, state="ended", container="c1", exit_code=None)
    site.store.tasks.interrupt(claim.task.id, 1, Reason("database_lost", "The connection dropped."))
    site.service.resume(run.id, user="mio")
    again = site.claim()
    ledger.execution(again.task.id, 2, 2, state="running", container="c2", exit_code=None)
    site.mark(again, ["b"])
    text = page(client, f"/runs/{run.id}?tab=attempts")
    assert "1 finished unit kept; what was in flight began again; finished 1 unit" in text
    assert "The connection dropped." in text
    part = client.get(f"/runs/{run.id}?tab=attempts", headers={"HX-Request": "true"}).text
    assert "<html" not in part
    assert "what was in flight began again" in part
    work = client.get(f"/api/v1/runs/{run.id}/attempts").json["attempts"][-1]["work"]
    told = "1 finished unit kept; what was in flight began again; finished 1 unit"
    known = {"kept": 1, "finished": 1, "failed": 0, "void": 0, "adopted": False, "begun_again": True}
    assert work == known | {"text": told}


def test_what_happened_tells_what_the_sweeper_removed(site: Site, client: FlaskClient) -> None:
    run = site.submit()
    site.service.cancel(run.id, user="mio")
    token = site.store.runs.begin_cleaning(run.id)
    assert token is not None
    site.store.runs.cleaned(run.id, token, removed=["seatrial-i-r1-t1-e1", "seatrial_x_i_r1_t1_e1"])
    text = page(client, f"/runs/{run.id}?tab=attempts")
    assert "seatrial-i-r1-t1-e1, seatrial_x_i_r1_t1_e1 " in text
    assert text.count('<time class="clock"') == len(site.service.events(run.id)), "each line has its time of day"


def test_an_errored_preparation_shows_its_last_lines(site: Site, client: FlaskClient) -> None:
    run = site.submit()
    claim = site.claim()
    site.log(claim, b"".join(b"line %d\n" % n for n in range(100)))
    site.end(claim, TaskState.ERRORED, Reason("database_refused", "The database has no marker."))
    text = page(client, f"/runs/{run.id}")
    assert "The database has no marker." in text
    assert "line 99" in text
    assert "line 79" not in text


def test_buttons_do_what_they_say(site: Site, client: FlaskClient) -> None:
    run = site.submit()
    secret = token(client, f"/runs/{run.id}")

    def press(action: str) -> str:
        answer = client.post(f"/runs/{run.id}/{action}", data={"csrf_token": secret})
        assert answer.status_code == 303
        return answer.headers["Location"]

    assert press("cancel") == f"/runs/{run.id}"
    assert site.service.run(run.id).state.value == "cancelled"
    press("cancel")  # a second press is told, not an error page
    assert "is cancelled already" in page(client, f"/runs/{run.id}")
    press("resume")
    assert site.service.run(run.id).state.value == "queued"
    assert press("rerun") == f"/runs/{run.id + 1}"


def test_a_run_is_submitted_by_the_form(site: Site, client: FlaskClient) -> None:
    fields = {"project": "accounts", "ref": " feature/rounding ", "note": "a\r\nb", "units": "", "database": ""}
    form = fields | {"csrf_token": token(client, "/new"), "priority": "3", "key": "k"}
    answer = client.post("/new", data=form)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/runs/1")
    run = site.service.run(1)
    assert (run.candidate.ref, run.note, run.priority) == ("feature/rounding", "a\nb", 3)
    assert client.post("/new", data=form).headers["Location"] == "/runs/1"  # the same form sent twice
    again = page(client, "/new")
    assert 'value="feature/rounding"' in again
    assert 'value="3"' in again
    assert 'value="feature/rounding"' not in page(client, "/new?project=plain").split("<datalist")[0]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"ref": "gone"}, "gone"),
        ({"ref": "-x"}, "-x"),
        ({"ref": "broken"}, "version"),
        ({"priority": "many"}, "many"),
        ({"priority": "500"}, "500"),
        ({"database": "other"}, "other"),
        ({"project": "nope"}, "Known projects"),
        ({"note": "x" * 2_001}, "2000"),
    ],
)
def test_a_refused_form_keeps_its_values(client: FlaskClient, sent: dict[str, str], said: str) -> None:
    form = {
        "csrf_token": token(client, "/new"),
        "project": "accounts",
        "ref": "main",
        "note": "keep me",
        "units": "*/pl",
    }
    answer = client.post("/new", data=form | sent)
    text = answer.get_data(as_text=True)
    assert answer.status_code in (404, 422)
    assert said in text
    assert "*/pl" in text
    assert 'role="alert"' in text
    if "note" not in sent:
        assert "keep me" in text


def test_the_preview_says_what_will_happen(site: Site, client: FlaskClient) -> None:
    text = page(client, "/new/preview?project=accounts&ref=feature/rounding")
    for words in (
        "Round half to even in the ledger",
        "Mio Tanaka",
        "bin/rails db:migrate",
        "bin/list-units",
        "verification",
    ):
        assert words in text
    assert "One unit" in page(client, "/new/preview?project=plain&ref=main")
    assert "is not valid" in page(client, "/new/preview?project=accounts&ref=broken")
    assert "Choose a branch" in page(client, "/new/preview?project=accounts&ref=")
    site.remotes["accounts"].down = "connection refused"
    assert "connection refused" in page(client, "/new/preview?project=accounts&ref=main")
    assert "feature/rounding" in page(client, "/new/refs?project=accounts&ref=round")
    assert page(client, "/new/refs?project=nope&ref=x").strip() == ""


def test_a_unit_page_looks_into_its_output(site: Site, client: FlaskClient) -> None:
    run = site.passed(["tenant 1/p&l"])
    text = page(client, f"/runs/{run.id}/units/candidate/tenant%201/p%26l")
    assert "<td>2026-11</td>" in text
    assert "p&amp;l" in text
    failed = site.failed()
    assert "What it said" in page(client, f"/runs/{failed.id}/units/candidate/tenant_001/bs")
    page(client, f"/runs/{run.id}/units/candidate/nope", 404)
    page(client, f"/runs/{run.id}/units/baseline/tenant%201/p%26l", 404)


def test_a_cell_is_text(site: Site, client: FlaskClient) -> None:
    run = site.submit()
    site.prepare(["a"])
    claim = site.claim()
    site.mark(claim, ["a"], data=b"x\n=1+1\n<img src=x onerror=alert(1)>\n")
    text = page(client, f"/runs/{run.id}/units/candidate/a")
    assert "<td>=1+1</td>" in text
    assert "&lt;img src=x" in text


def test_projects_and_capacity(site: Site, client: FlaskClient) -> None:
    assert "none yet" in page(client, "/projects")
    assert "seatrial worker --pool local" in page(client, "/capacity")
    site.worker()
    site.submit()
    site.claim()
    assert "run 1" in page(client, "/capacity")
    assert "Running" in page(client, "/projects")


def test_a_sick_server_says_so_on_every_page(client: FlaskClient) -> None:
    assert "No worker is running" in page(client, "/projects")


def test_errors_teach(client: FlaskClient) -> None:
    text = page(client, "/runs/999", 404)
    assert "There is no run 999." in text
    assert 'href="/runs"' in text
    page(client, f"/runs/{10**30}", 404)
    page(client, "/runs/x", 404)


def test_static_files_are_versioned_and_licensed(client: FlaskClient) -> None:
    text = page(client, "/runs")
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', text):
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert "max-age=31536000" in answer.headers["Cache-Control"]
        answer.close()
    vendor = Path("web/static/vendor")
    listed = {line.split()[0] for line in (vendor / "VERSIONS").read_text().splitlines()[1:]}
    assert {path.name for path in vendor.glob("*.js")} == listed
    for name in listed:
        assert (vendor / f"{name.split('.')[0]}.LICENSE.txt").exists()
