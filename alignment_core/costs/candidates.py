"""What an online method holds while it judges what it has drawn: TailorPO's prediction waits for its update meanwhile."""

from dataclasses import dataclass

from alignment_core.spec.rollouts import Rollouts


@dataclass(frozen=True)
class Candidates:
    """Bytes that a micro-batch takes while the network draws without a gradient, while images are decoded, while a gradient goes back through
    the decoder, in the policy's backward, and while it waits for that."""

    drawing: float
    decoding: float
    climbing: float
    backward: float
    waiting: float

    def judged(self, method: Rollouts, num_processes: int) -> float:
        """At the most, of TailorPO; what else is online judges whole batches that nothing waits beside.

        Several processes keep no prediction. What foresees an image is done when the decoder begins, unless a winner climbs its reward's
        gradient back through both.
        """
        if not method.keeps_predictions:
            return 0.0
        beside = self.waiting if num_processes == 1 else 0.0
        match method.climbs_through:
            case None:
                return beside + max(self.drawing, self.decoding)
            case "decoder":
                return beside + max(self.drawing, self.climbing)
            case "network":
                return beside + max(self.waiting + max(self.drawing, self.climbing), self.backward)
