"""What people want of a pool, in SQL: that it is kept awake, that a machine is started or stopped, a new run soon."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_machine_rows import hold_of, wish_of
from jobs.adapters.sql_schema import holds, machines, wishes
from jobs.machines import Hold, Wish, WishKind
from runner.errors import NotFound

SAME_FORM_SECONDS = 10.0  # a form that is loaded again, or changed, is no other one


_OPEN = select(wishes).where(wishes.c.done_at.is_(None)).order_by(wishes.c.id)


class SqlWishes:
    """Write and read holds and wishes. Nothing of them is ever deleted."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # ---- holds ----------------------------------------------------------------------------------------------

    def hold(self, pool: str, *, seconds: float, reason: str, made_by: str, instance: str | None = None) -> Hold:
        """Keep a pool, or one machine of it, awake from now on; a stop that is confirmed already is not taken back."""
        with self._db.write() as connection:
            # Whoever is about to confirm a stop is waited for, or sees the hold.
            query = select(machines.c.instance).where(machines.c.pool == pool).order_by(machines.c.instance)
            connection.execute(query.with_for_update()).all()
            now = self._db.now(connection)
            values = {"pool": pool, "instance": instance, "until": now + seconds, "reason": reason, "made_by": made_by}
            new = insert(holds).values(**values, made_at=now).returning(holds)
            return hold_of(connection.execute(new).one())

    def release(self, hold: int, *, by: str) -> Hold:
        """End a hold before its time; one that is over stays as it is. Raises NotFound."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            open_one = (holds.c.id == hold, holds.c.released_at.is_(None), holds.c.until > now)
            connection.execute(update(holds).where(*open_one).values(released_at=now, released_by=by))
            row = connection.execute(select(holds).where(holds.c.id == hold)).one_or_none()
            if row is None:
                raise NotFound(f"There is no hold {hold}.", field="hold", value=str(hold))
            return hold_of(row)

    def holds(self, pool: str | None = None, *, also_over: bool = False, limit: int = 100) -> list[Hold]:
        """List the holds of a pool, or of all, newest first."""
        with self._db.read() as connection:
            query = select(holds).order_by(holds.c.id.desc()).limit(limit)
            if pool is not None:
                query = query.where(holds.c.pool == pool)
            if not also_over:
                query = query.where(holds.c.until > self._db.now(connection), holds.c.released_at.is_(None))
            return [hold_of(row) for row in connection.execute(query)]

    # ---- wishes ---------------------------------------------------------------------------------------------

    def wish(self, pool: str, kind: WishKind, *, made_by: str, instance: str | None = None, reason: str = "") -> Wish:
        """Ask for something; the same that is asked for already is not asked for twice."""
        with self._db.write() as connection:
            self._db.alone(connection, f"wish {pool}")
            same = select(wishes).where(
                wishes.c.pool == pool,
                wishes.c.kind == kind.value,
                wishes.c.instance.is_not_distinct_from(instance),
                wishes.c.done_at.is_(None),
            )
            if (known := connection.execute(same.limit(1)).one_or_none()) is not None:
                return wish_of(known)
            now = self._db.now(connection)
            values = {"pool": pool, "instance": instance, "kind": kind.value, "reason": reason, "made_by": made_by}
            return wish_of(connection.execute(insert(wishes).values(**values, made_at=now).returning(wishes)).one())

    def open_wishes(self, pool: str | None = None) -> list[Wish]:
        """List what was asked for and not done yet, oldest first."""
        with self._db.read() as connection:
            found = map(wish_of, connection.execute(_OPEN))
            return [one for one in found if pool in (None, one.pool)]

    def wish_done(self, wish: int, outcome: str) -> bool:
        """Say what came of a wish; False when that was said before."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            open_one = (wishes.c.id == wish, wishes.c.done_at.is_(None))
            changed = connection.execute(update(wishes).where(*open_one).values(done_at=now, outcome=outcome))
            return bool(changed.rowcount)

    def wishes(self, pool: str | None = None, *, limit: int = 50) -> list[Wish]:
        """List what people asked for, newest first; opened forms are not among it."""
        with self._db.read() as connection:
            query = select(wishes).where(wishes.c.kind != WishKind.FORM.value).order_by(wishes.c.id.desc())
            if pool is not None:
                query = query.where(wishes.c.pool == pool)
            return [wish_of(row) for row in connection.execute(query.limit(limit))]

    def form_opened(self, pool: str, *, made_by: str) -> bool:
        """Note that somebody opened the form for a new run; False for one that was noted just now."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            mine = (wishes.c.pool == pool, wishes.c.kind == WishKind.FORM.value, wishes.c.made_by == made_by)
            lately = select(wishes.c.id).where(*mine, wishes.c.made_at > now - SAME_FORM_SECONDS).limit(1)
            if connection.execute(lately).first() is not None:
                return False
            values = {"pool": pool, "kind": WishKind.FORM.value, "made_by": made_by, "made_at": now, "done_at": now}
            connection.execute(insert(wishes).values(**values, reason=""))
            return True
