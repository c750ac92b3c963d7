"""Settings: every value the service and the worker read from the environment, as `ATTUNE_<NAME>`.

The defaults run everything embedded in one folder: SQLite, a Valkey server on a unix socket, a directory of objects.
Each address given here moves one part to its real server.
"""

from service.settings.api import Api
from service.settings.lists import parts_of
from service.settings.objects import Objects
from service.settings.patience import Patience
from service.settings.places import Places
from service.settings.quotas import Quotas
from service.settings.tools import Tools
from service.settings.training import Training
from service.settings.webhooks import Webhooks
from service.store.webhook_secrets import Sealer, key_in


class Settings(Places, Objects, Api, Quotas, Training, Tools, Webhooks, Patience):
    """Where the parts are, and how patient they are. Unset values keep everything inside `data_dir`."""

    @property
    def webhooks_sealer(self) -> Sealer | None:
        """What seals and opens the secrets of webhooks; None where API and workers have no key in common."""
        if self.webhooks_key is not None:
            return Sealer(parts_of(self.webhooks_key))
        if self.resolved_database_url.startswith("sqlite"):  # one host, one folder
            return Sealer((key_in(self.data_dir / "webhooks.key"),))
        return None
