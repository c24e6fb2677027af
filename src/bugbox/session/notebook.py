# SPDX-License-Identifier: Apache-2.0
"""Write down how each case of a test ended, whatever way it ended."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bugbox.errors import BugboxError
from bugbox.puzzle.matrix import Case, Sheet, Stage
from bugbox.puzzle.text import printable
from bugbox.session.stages import Draft
from bugbox.session.trial import Trial

__all__ = ["Notebook"]


class Notebook:
    """One puzzle's sheet, and whether the machines of failures are kept."""

    def __init__(self, sheet: Sheet, *, keep: bool) -> None:
        self.sheet = sheet
        self.keep = keep

    @asynccontextmanager
    async def trying(
        self, made: Trial, stage: Stage, name: str, ran: str = "the checks"
    ) -> AsyncIterator[Draft]:
        """Try one thing in a machine; whatever goes wrong with the machine is its failure."""
        begun = time.monotonic()
        draft = Draft(ran)
        try:
            yield draft
        except BugboxError as error:
            draft.wrong = (error.message,)
            draft.output = "\n".join(part for part in (draft.output, error.detail or "") if part)
        if draft.wrong and self.keep:
            made.keep = True
        self.sheet.add(
            Case(
                stage=stage,
                name=name,
                status="failed" if draft.wrong else "passed",
                seconds=time.monotonic() - begun,
                message="; ".join(draft.wrong) or draft.remark,
                ran=draft.ran,
                output=printable(draft.output) if draft.wrong else "",
                machine=made.id if draft.wrong and self.keep else "",
            )
        )

    def ended(
        self, stage: Stage, name: str, begun: float, wrong: Sequence[str] = (), remark: str = ""
    ) -> None:
        """Note what was tried without a machine; `begun` is time.monotonic's."""
        self.sheet.add(
            Case(
                stage=stage,
                name=name,
                status="failed" if wrong else "passed",
                seconds=time.monotonic() - begun,
                message="; ".join(wrong) or remark,
            )
        )

    def failed(
        self,
        stage: Stage,
        name: str,
        begun: float,
        error: BugboxError,
        *,
        ran: str = "",
        machine: str = "",
    ) -> None:
        """Note what could not even be tried."""
        self.sheet.add(
            Case(
                stage=stage,
                name=name,
                status="failed",
                seconds=time.monotonic() - begun,
                message=error.message,
                ran=ran,
                output=printable(error.detail or ""),
                machine=machine,
            )
        )

    def skipped(self, stage: Stage, name: str, why: str) -> None:
        """Note what was not tried."""
        self.sheet.add(Case(stage=stage, name=name, status="skipped", message=why))
