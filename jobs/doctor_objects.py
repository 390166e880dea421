"""Judge an object store on S3. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.doctor import Finding, Level

RIGHTS = (
    "Runs need s3:GetObject, s3:PutObject, s3:AbortMultipartUpload on the objects, and s3:ListBucket, "
    "s3:ListBucketMultipartUploads on the bucket."
)
WHAT = "object store"


@dataclass(frozen=True)
class ObjectsFacts:
    """What a trial of the store showed.

    `seconds`: until the first write was answered. `conditional`: whether it refuses to write over what is there. `same`:
    whether the bytes came back. `lists`, `deletes`: whether it lets us list uploads, and take our trial away.
    """

    place: str
    seconds: float = 0.0
    error: str = ""
    conditional: bool = True
    same: bool = True
    lists: bool = True
    deletes: bool = True


def judge_objects(facts: ObjectsFacts) -> list[Finding]:
    """Judge the store by a trial of it."""
    if facts.error:
        remedy = f"Mend the way to it, its credentials or its policy; see [objects] in seatrial.toml. {RIGHTS}"
        return [Finding(WHAT, Level.PROBLEM, facts.error, remedy)]
    if not facts.same:
        text = f"{facts.place} did not give back a part of what was written"
        return [Finding(WHAT, Level.PROBLEM, text, "Use a store that answers ranged reads, as S3 does.")]
    found = [Finding(WHAT, Level.OK, f"{facts.place} was written to and read in {facts.seconds:.2f} s")]
    if not facts.conditional:
        text = f"{facts.place} does not heed If-None-Match: what is there is written again, with the same bytes"
        remedy = "Nothing is lost by it; a newer release of the store may know conditional writes."
        found.append(Finding(f"{WHAT}, conditions", Level.WARNING, text, remedy))
    if not facts.lists:
        text = f"{facts.place} does not list uploads: parts that a killed process left stay there and cost money"
        remedy = "Allow s3:ListBucketMultipartUploads, or let a rule of the bucket abort incomplete uploads."
        found.append(Finding(f"{WHAT}, uploads", Level.WARNING, text, remedy))
    if not facts.deletes:
        text = f"{facts.place} does not let us delete: the trial of this look stays there"
        remedy = f"Allow s3:DeleteObject below doctor/, or remove {facts.place}/doctor/ now and then."
        found.append(Finding(f"{WHAT}, deletion", Level.WARNING, text, remedy))
    return found


def judge_directory(path: str, hosts: tuple[str, ...]) -> list[Finding]:
    """Judge a directory that several hosts keep their outputs in: each has its own, unless they mount one."""
    if len(hosts) < 2:
        return []
    text = f"{', '.join(hosts)} share the records, and keep outputs and logs in a directory each ({path})"
    remedy = "Name one bucket on all of them: [objects] url. A network file system that all have there works too."
    return [Finding(f"{WHAT}, hosts", Level.WARNING, text, remedy)]
