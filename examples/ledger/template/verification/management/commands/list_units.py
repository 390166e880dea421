"""Print what can be verified alone: `<entity>/<statement>`, one a line."""

from django.core.management.base import BaseCommand
from django_ledger.models import EntityModel

from verification.statements import STATEMENTS


class Command(BaseCommand):
    help = __doc__

    def handle(self, **_options: object) -> None:
        for slug in EntityModel.objects.order_by("slug").values_list("slug", flat=True):
            for statement in STATEMENTS:
                self.stdout.write(f"{slug}/{statement}")
