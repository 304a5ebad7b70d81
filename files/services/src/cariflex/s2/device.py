"""One device as the CEM knows it: its description and state, the conversation with its resource manager, its orders."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from prometheus_client import Counter
from s2python.common import (
    ControlType,
    EnergyManagementRole,
    Handshake,
    HandshakeResponse,
    InstructionStatus,
    SelectControlType,
)
from s2python.frbc import FRBCInstruction

from cariflex.s2.door import Door
from cariflex.s2.frbc import actuator_of, level_in_kwh
from cariflex.s2.mapping import Actuator, Range, Setting, setting_for
from cariflex.s2.wire import VERSION, RefusedError, Status, new_id

log = logging.getLogger(__name__)

INSTRUCTIONS = Counter("cariflex_s2_instructions_total", "Instructions, by what became of them.", ["status"])

SETTLE_SECONDS = 10.0  # how long a device may take to follow before what it reports counts as its own will
AGAIN_SECONDS = 30.0  # before an instruction that had no effect is repeated
SAME_KW = 0.01

_FRBC = ControlType.FILL_RATE_BASED_CONTROL
_FROM_CEM = ("HandshakeResponse", "SelectControlType")
# What a resource manager may say at any time after its details.
_ALWAYS = ("PowerMeasurement", "PowerForecast", "InstructionStatusUpdate", "RevokeObject", "ResourceManagerDetails")


@dataclass
class Order:
    """What the CEM told a device last.

    Attributes:
        own_kw: what the device did by itself, to which it returns when the limit ends.
        power_kw: what it was told.
        sent: seconds since 1970.
        open: no status has shown yet that it follows.
    """

    own_kw: float
    power_kw: float
    sent: float
    open: bool = True


class Device:
    """Lives as long as the CEM; connections come and go.

    Attributes:
        door: the connection, None without one.
        power_kw: what the device reported last, + is consumption; None when not known.
        fill_level: of the storage in the device's unit; None when not known.
        status_at: when the storage's state came last, seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        allowed: Range,
        energy_kwh: float,
        order: Order | None = None,
        changed: Callable[["Device"], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`order` is what an earlier process remembered; `changed` is called when the device reported its state."""
        self.name = name
        self.allowed = allowed
        self.energy_kwh = energy_kwh
        self.order = order
        self.door: Door | None = None
        self.power_kw: float | None = None
        self.fill_level: float | None = None
        self.status_at: float | None = None
        self._changed = changed
        self._clock = clock
        self._own_kw = order.own_kw if order else None
        self._description: Any = None
        self._actuator: Actuator | None = None
        self._stage = "Handshake"
        self._instructions: dict[Any, Order] = {}

    # --- connection ----------------------------------------------------------------------------------------------

    async def converse(self, door: Door) -> None:
        """Hold one connection until it ends; an older one of the same device is closed."""
        older, self.door = self.door, door
        if older is not None:
            await older.close("the device has connected anew")
        self._stage = "Handshake"
        self._actuator = self._description = self.power_kw = self.fill_level = None
        self._instructions.clear()
        log.info("device connected", extra={"resource": self.name})
        try:
            await door.send(
                Handshake(message_id=new_id(), role=EnergyManagementRole.CEM, supported_protocol_versions=[VERSION])
            )
            await door.listen(lambda message: self._handle(door, message), self._refused)
        finally:
            if self.door is door:
                self.door = None
                self.power_kw = None
            log.info("device disconnected", extra={"resource": self.name})

    async def _handle(self, door: Door, message: Any) -> None:
        if door is not self.door:
            raise RefusedError(Status.TEMPORARY_ERROR, "the device has connected anew")
        kind = message.message_type
        if kind in _FROM_CEM or kind.endswith("Instruction"):
            raise RefusedError(Status.INVALID_CONTENT, f"{kind} is sent by a CEM only")
        self._expect(kind)
        handler = self._HANDLERS.get(kind)
        follow_up = await handler(self, message) if handler else None
        await door.acknowledge(message)
        for reply in follow_up or ():
            await door.send(reply)
        if kind == "SessionRequest":
            await door.close(f"asked for by the device: {message.request.value}")
        elif kind in ("FRBC.StorageStatus", "FRBC.ActuatorStatus") and self._changed is not None:
            await self._changed(self)

    def _expect(self, kind: str) -> None:
        """Refuse what does not belong to this part of the conversation."""
        stage = self._stage
        if kind in ("Handshake", "SessionRequest"):
            return
        if stage == "Handshake":
            raise RefusedError(Status.INVALID_CONTENT, f"{kind} came before Handshake")
        if stage == "ResourceManagerDetails" and kind != stage:
            raise RefusedError(Status.INVALID_CONTENT, f"{kind} came before ResourceManagerDetails")
        if kind not in _ALWAYS and (stage == "NO_SELECTION" or not kind.startswith("FRBC.")):
            raise RefusedError(Status.INVALID_CONTENT, f"{kind} does not belong to the selected control type")

    async def _handshake(self, message: Any) -> list[Any]:
        if message.role != EnergyManagementRole.RM:
            raise RefusedError(Status.INVALID_CONTENT, "the role of a resource manager is RM", fatal=True)
        if VERSION not in (message.supported_protocol_versions or []):
            raise RefusedError(Status.PERMANENT_ERROR, f"no version in common; {VERSION} is spoken", fatal=True)
        self._stage = "ResourceManagerDetails"
        return [HandshakeResponse(message_id=new_id(), selected_protocol_version=VERSION)]

    async def _details(self, message: Any) -> list[Any]:
        can = _FRBC in message.available_control_types
        if not can:
            log.warning("device cannot be controlled by FRBC, it is only heard", extra={"resource": self.name})
        self._stage = "FRBC" if can else "NO_SELECTION"
        return [SelectControlType(message_id=new_id(), control_type=_FRBC if can else ControlType.NO_SELECTION)]

    async def _system_description(self, message: Any) -> None:
        actuator = actuator_of(message)
        if self._actuator is not None and actuator != self._actuator:
            self.power_kw = None  # what the old modes meant says nothing about the new ones
        self._actuator, self._description = actuator, message

    async def _storage_status(self, message: Any) -> None:
        self._described()
        self.fill_level = message.present_fill_level
        self.status_at = self._clock()

    async def _actuator_status(self, message: Any) -> None:
        actuator = self._described()
        if str(message.actuator_id) != actuator.id:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no actuator {message.actuator_id} to control")
        if not 0 <= message.operation_mode_factor <= 1:
            raise RefusedError(Status.INVALID_CONTENT, f"factor {message.operation_mode_factor:g} is not within 0..1")
        level = actuator.fill_levels.low if self.fill_level is None else self.fill_level
        power = actuator.power_of(str(message.active_operation_mode_id), message.operation_mode_factor, level)
        if power is None:
            raise RefusedError(
                Status.INVALID_CONTENT, f"there is no operation mode {message.active_operation_mode_id} to choose"
            )
        self.power_kw = power
        order = self.order
        if order is not None and abs(power - order.power_kw) <= SAME_KW:
            order.open = False
        self._see_own_will()

    def _see_own_will(self) -> None:
        """What a device does without having been told is what it does by itself, and what it returns to."""
        order, power = self.order, self.power_kw
        if order is not None and order.open and self._clock() - order.sent <= SETTLE_SECONDS:
            return  # it may still be on its way to what it was told
        if order is None or power is None or abs(power - order.power_kw) > SAME_KW:
            self._own_kw = power

    async def _timer_or_forecast(self, message: Any) -> None:
        actuator_id = getattr(message, "actuator_id", None)
        if actuator_id is not None and str(actuator_id) != self._described().id:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no actuator {actuator_id} to control")

    async def _instruction_status(self, message: Any) -> None:
        order = self._instructions.get(message.instruction_id)
        if order is None:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no instruction {message.instruction_id}")
        status = message.status_type
        INSTRUCTIONS.labels(status.value.lower()).inc()
        log.info(
            "instruction status",
            extra={"resource": self.name, "instruction": str(message.instruction_id), "status": status.value},
        )
        if status in (InstructionStatus.REJECTED, InstructionStatus.ABORTED, InstructionStatus.REVOKED):
            order.open = False

    async def _revoke(self, message: Any) -> None:
        if message.object_type.value != "FRBC.SystemDescription" or self._description is None:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no {message.object_type.value} {message.object_id}")
        if message.object_id != self._description.message_id:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no system description {message.object_id}")
        self._actuator = self._description = self.power_kw = None

    async def _heard(self, _message: Any) -> None:
        """Nothing follows from it; it is answered."""

    def _described(self) -> Actuator:
        if self._actuator is None:
            raise RefusedError(Status.INVALID_CONTENT, "FRBC.SystemDescription has to come before")
        return self._actuator

    def _refused(self, sent: Any, reason: str) -> None:
        log.error(
            "device refused a message",
            extra={"resource": self.name, "message_type": sent.message_type, "reason": reason},
        )
        if sent.message_type == "FRBC.Instruction" and (order := self._instructions.pop(sent.id, None)):
            INSTRUCTIONS.labels("refused").inc()
            order.open = False

    _HANDLERS: ClassVar[dict[str, Callable[["Device", Any], Awaitable[list[Any] | None]]]] = {
        "Handshake": _handshake,
        "ResourceManagerDetails": _details,
        "FRBC.SystemDescription": _system_description,
        "FRBC.StorageStatus": _storage_status,
        "FRBC.ActuatorStatus": _actuator_status,
        "FRBC.LeakageBehaviour": _timer_or_forecast,
        "FRBC.UsageForecast": _timer_or_forecast,
        "FRBC.FillLevelTargetProfile": _timer_or_forecast,
        "FRBC.TimerStatus": _timer_or_forecast,
        "InstructionStatusUpdate": _instruction_status,
        "RevokeObject": _revoke,
        "PowerMeasurement": _heard,
        "PowerForecast": _heard,
        "SessionRequest": _heard,
    }

    # --- control -------------------------------------------------------------------------------------------------

    def decide(self, ceiling_kw: float | None) -> Setting | None:
        """What to tell the device now; None for nothing, because it is right already or something is not known."""
        if self.door is None or self._actuator is None or self.power_kw is None:
            return None
        self._see_own_will()
        setting = setting_for(self._own_kw, ceiling_kw, self.fill_level, self._actuator, self.allowed)
        if setting is None:
            return None
        told = self.order
        in_time = told is not None and self._clock() - told.sent < AGAIN_SECONDS
        if told is not None and in_time and abs(told.power_kw - setting.power_kw) <= SAME_KW:
            return None  # told just now
        settled = told is None or not told.open or not in_time
        if settled and abs(self.power_kw - setting.power_kw) <= SAME_KW:
            return None  # it does so already
        if told is None and ceiling_kw is None:
            return None  # never told anything, and nothing to tell
        return setting

    async def instruct(self, setting: Setting) -> Order:
        """Tell the device; it has to begin at once."""
        if self.door is None or self._actuator is None or self._own_kw is None:
            raise ValueError(f"{self.name} cannot be told anything now")
        order = Order(self._own_kw, setting.power_kw, self._clock())
        instruction = FRBCInstruction(
            message_id=new_id(),
            id=new_id(),
            actuator_id=self._actuator.id,
            operation_mode=setting.mode_id,
            operation_mode_factor=setting.factor,
            execution_time=datetime.fromtimestamp(order.sent, UTC),
            abnormal_condition=False,
        )
        self.order = order
        self._instructions[instruction.id] = order
        if len(self._instructions) > 100:
            self._instructions.pop(next(iter(self._instructions)))
        INSTRUCTIONS.labels("sent").inc()
        await self.door.send(instruction)
        return order

    def stored_kwh(self) -> float | None:
        """Energy in the storage; None when it is not known."""
        if self.fill_level is None or self._description is None:
            return None
        return level_in_kwh(self._description, self.fill_level, self.energy_kwh)
