"""One device as the CEM knows it: its description and state, the conversation with its resource manager, its orders."""

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from prometheus_client import Counter
from s2python.common import (
    ControlType,
    EnergyManagementRole,
    Handshake,
    HandshakeResponse,
    RevokableObjects,
    RevokeObject,
    SelectControlType,
    SessionRequest,
    SessionRequestType,
)
from s2python.frbc import FRBCInstruction

from cariflex.s2.door import Door
from cariflex.s2.frbc import actuator_of, checked_level, leakage_of, level_in_kwh, measured_kw, targets_of, usage_of
from cariflex.s2.mapping import Actuator, Range, Setting
from cariflex.s2.outlook import Outlook
from cariflex.s2.program import Aim, Known, Step
from cariflex.s2.wire import VERSION, RefusedError, Status, new_id

log = logging.getLogger(__name__)

INSTRUCTIONS = Counter("cariflex_s2_instructions_total", "Instructions, by what became of them.", ["status"])

SETTLE_SECONDS = 10.0  # how long a device may take to follow before what it reports counts as its own will
AGAIN_SECONDS = 30.0  # before an instruction that had no effect is repeated
AHEAD_SECONDS = 2.0  # a step that is nearer than this is not told ahead
MEASURED_SECONDS = 60.0  # how long a measurement counts
SAME_KW = 0.01
REMEMBERED = 400  # instructions whose later fate is still understood

_FRBC = ControlType.FILL_RATE_BASED_CONTROL
_FROM_CEM = ("HandshakeResponse", "SelectControlType")
# What a resource manager may say at any time after its details.
_ALWAYS = ("PowerMeasurement", "PowerForecast", "InstructionStatusUpdate", "RevokeObject", "ResourceManagerDetails")
# The order in which the states of an instruction come; from the last ones there is no other.
_RANK = {"SENT": 0, "NEW": 1, "ACCEPTED": 2, "STARTED": 3, "REJECTED": 4, "REVOKED": 4, "SUCCEEDED": 4, "ABORTED": 4}
_FAILED = ("REJECTED", "REVOKED", "ABORTED")


@dataclass
class Order:
    """An instruction, and what became of it.

    Attributes:
        own_kw: what the device did by itself, to which it returns when nothing is asked any more.
        power_kw: what it was told.
        at: when it has to begin, seconds since 1970.
        id: of the instruction.
        limit_kw: the limit behind it, if any.
        reason: what asked for it: own (return to its own will, under a limit maybe), plan, charge, dispatch.
        events: the events behind it.
        open: no status has shown yet that the device follows.
        status: the last one the device told; SENT before.
        times: when each status came, seconds since 1970.
        stale: told in an earlier connection or for another description; no longer counted on.
    """

    own_kw: float
    power_kw: float
    at: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    mode_id: str = ""
    factor: float = 0.0
    limit_kw: float | None = None
    reason: str = "own"
    events: tuple[str, ...] = ()
    open: bool = True
    status: str = "SENT"
    times: dict[str, float] = field(default_factory=dict)
    stale: bool = False


class Device:
    """Lives as long as the CEM; connections come and go.

    Attributes:
        door: the connection, None without one.
        power_kw: what the device's actuator does by its last status, + is consumption; None when not known.
        fill_level: of the storage in the device's unit; None when not known.
        status_at: when the storage's state came last, seconds since 1970.
        order: what it was told last to do now.
        ahead: what it was told to do later, in order of time.
        touched: orders that changed since somebody emptied this.
        connections: how often it has connected.
        gone_at: since when it is away, seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        allowed: Range,
        energy_kwh: float,
        orders: Sequence[Order] = (),
        changed: Callable[["Device"], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`orders` is what an earlier process remembered; `changed` is called when the device reported its state."""
        self.name = name
        self.allowed = allowed
        self.energy_kwh = energy_kwh
        self._clock = clock
        self.door: Door | None = None
        self.power_kw: float | None = None
        self.fill_level: float | None = None
        self.status_at: float | None = None
        begun = [order for order in orders if order.at <= clock()]
        self.order = begun[-1] if begun else None
        self.ahead = [order for order in orders if order.at > clock()]
        self.touched: dict[str, Order] = {}
        self.connections = 0
        self.gone_at = clock()
        self._changed = changed
        self._own_kw = self.order.own_kw if self.order else None
        self._measured: tuple[float, float] | None = None  # kW, when
        self._description: Any = None
        self._actuator: Actuator | None = None
        self._mode_id: str | None = None
        self._timers: dict[str, float] = {}
        self._outlook = Outlook()
        self._takes_ahead = True
        self._stage = "Handshake"
        self._orders = {order.id: order for order in orders}

    # --- connection ----------------------------------------------------------------------------------------------

    async def converse(self, door: Door) -> None:
        """Hold one connection until it ends; an older one of the same device is closed."""
        older, self.door = self.door, door
        if older is not None:
            await older.close("the device has connected anew")
        self._stage = "Handshake"
        self._forget()
        self.fill_level = None
        self.connections += 1
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
                self.gone_at = self._clock()
            log.info("device disconnected", extra={"resource": self.name})

    async def dismiss(self, reason: str) -> None:
        """End the connection as the standard asks for: with the request to connect anew."""
        if self.door is not None:
            request = SessionRequest(
                message_id=new_id(), request=SessionRequestType.RECONNECT, diagnostic_label=reason[:100]
            )
            with suppress(ConnectionError):
                await self.door.send(request)
            await self.door.close(reason)

    def _forget(self) -> None:
        """Nothing that was said about the device holds any more; what it was told for later has to be told again."""
        self._actuator = self._description = self.power_kw = self._mode_id = self._measured = None
        self._timers.clear()
        self._outlook = Outlook()
        self._takes_ahead = True
        for order in self.orders():
            order.stale = True

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
        if actuator != self._actuator:
            self._forget()  # what the old modes meant says nothing about the new ones
        self._actuator, self._description = actuator, message

    async def _storage_status(self, message: Any) -> None:
        self._described()
        self.fill_level = checked_level(message.present_fill_level)
        self.status_at = self._clock()

    async def _actuator_status(self, message: Any) -> None:
        actuator = self._described(message)
        if not 0 <= message.operation_mode_factor <= 1:
            raise RefusedError(Status.INVALID_CONTENT, f"factor {message.operation_mode_factor:g} is not within 0..1")
        level = actuator.fill_levels.low if self.fill_level is None else self.fill_level
        mode_id = str(message.active_operation_mode_id)
        power = actuator.power_of(mode_id, message.operation_mode_factor, level)
        if power is None:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no operation mode {mode_id}")
        if mode_id != self._mode_id:
            before = str(message.previous_operation_mode_id) if message.previous_operation_mode_id else self._mode_id
            since = message.transition_timestamp.timestamp() if message.transition_timestamp else self._clock()
            self._timers |= actuator.timers_started(before, mode_id, since)
            self._mode_id = mode_id
        self.power_kw = power
        self._begin_early(power)
        if self.order is not None and abs(power - self.order.power_kw) <= SAME_KW:
            self.order.open = False
        self._see_own_will()

    def _begin_early(self, power: float) -> None:
        """A device whose clock is ahead of ours does not show its own will when it begins."""
        for order in self.ahead:
            if order.at - self._clock() <= SETTLE_SECONDS and abs(power - order.power_kw) <= SAME_KW:
                self._begin(order)
                return

    def _begin(self, order: Order) -> None:
        """An order that was told ahead is now the one that counts; those before it are past."""
        self.ahead = [other for other in self.ahead if other.at > order.at]
        self.order = order

    def _see_own_will(self) -> None:
        """What a device does without having been told is what it does by itself, and what it returns to."""
        order, power = self.order, self.power_kw
        settling = order is not None and order.open and not order.stale and self._clock() - order.at <= SETTLE_SECONDS
        if settling:
            return  # it may still be on its way to what it was told
        if order is not None and order.open and order.status == "SENT":
            return  # it may never have heard of that, lost with a connection, and still do what it was told before
        if order is None or power is None or abs(power - order.power_kw) > SAME_KW:
            self._own_kw = power

    async def _timer_status(self, message: Any) -> None:
        actuator, timer = self._described(message), str(message.timer_id)
        if timer not in actuator.timers:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no timer {timer}")
        self._timers[timer] = message.finished_at.timestamp()

    async def _leakage(self, message: Any) -> None:
        self._described()
        self._outlook = replace(self._outlook, leakage=leakage_of(message))

    async def _usage(self, message: Any) -> None:
        self._described()
        self._outlook = replace(self._outlook, usage=usage_of(message))

    async def _targets(self, message: Any) -> None:
        self._described()
        self._outlook = replace(self._outlook, targets=targets_of(message))

    async def _measurement(self, message: Any) -> None:
        if (power := measured_kw(message)) is not None:
            self._measured = (power, self._clock())

    async def _instruction_status(self, message: Any) -> None:
        order = self._orders.get(str(message.instruction_id))
        if order is None:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no instruction {message.instruction_id}")
        status = message.status_type.value
        before, after = _RANK[order.status], _RANK[status]
        if after < before or (before == after == _RANK["REJECTED"] and status != order.status):
            raise RefusedError(Status.INVALID_CONTENT, f"instruction {order.id} was {order.status} before")
        self._became(order, status)
        if status == "STARTED" and order in self.ahead:
            self._begin(order)
        elif status in _FAILED:
            order.open = False
            if order in self.ahead:
                self.ahead.remove(order)
                self._takes_ahead = self._takes_ahead and status == "REVOKED"

    def _became(self, order: Order, status: str) -> None:
        order.status = status
        order.times[status] = self._clock()
        self.touched[order.id] = order
        INSTRUCTIONS.labels(status.lower()).inc()
        log.info(
            "instruction status",
            extra={"resource": self.name, "instruction": order.id, "status": status, "event_ids": order.events},
        )

    async def _revoke(self, message: Any) -> None:
        if message.object_type.value != "FRBC.SystemDescription" or self._description is None:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no {message.object_type.value} {message.object_id}")
        if message.object_id != self._description.message_id:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no system description {message.object_id}")
        self._forget()

    async def _heard(self, _message: Any) -> None:
        """Nothing follows from it; it is answered."""

    def _described(self, message: Any = None) -> Actuator:
        """The actuator that was described, and that `message` names if it names one."""
        if self._actuator is None:
            raise RefusedError(Status.INVALID_CONTENT, "FRBC.SystemDescription has to come before")
        if message is not None and str(message.actuator_id) != self._actuator.id:
            raise RefusedError(Status.INVALID_CONTENT, f"there is no actuator {message.actuator_id} to control")
        return self._actuator

    def _refused(self, sent: Any, reason: str) -> None:
        kind = sent.message_type
        # a device that has started anew holds nothing that could be revoked
        level = logging.INFO if kind == "RevokeObject" else logging.ERROR
        log.log(
            level, "device refused a message", extra={"resource": self.name, "message_type": kind, "reason": reason}
        )
        if kind == "FRBC.Instruction" and (order := self._orders.get(str(sent.id))):
            INSTRUCTIONS.labels("refused").inc()
            order.open = False
            order.status = "REJECTED"
            order.times["REJECTED"] = self._clock()
            self.touched[order.id] = order
            if order in self.ahead:
                self.ahead.remove(order)
                self._takes_ahead = False

    _HANDLERS: ClassVar[dict[str, Callable[["Device", Any], Awaitable[list[Any] | None]]]] = {
        "Handshake": _handshake,
        "ResourceManagerDetails": _details,
        "FRBC.SystemDescription": _system_description,
        "FRBC.StorageStatus": _storage_status,
        "FRBC.ActuatorStatus": _actuator_status,
        "FRBC.LeakageBehaviour": _leakage,
        "FRBC.UsageForecast": _usage,
        "FRBC.FillLevelTargetProfile": _targets,
        "FRBC.TimerStatus": _timer_status,
        "InstructionStatusUpdate": _instruction_status,
        "RevokeObject": _revoke,
        "PowerMeasurement": _measurement,
        "PowerForecast": _heard,
        "SessionRequest": _heard,
    }

    # --- control -------------------------------------------------------------------------------------------------

    def known(self) -> Known | None:
        """All that control needs; None while something of it is not known."""
        if self.door is None or self._actuator is None or self.power_kw is None:
            return None
        if self._own_kw is None or self.fill_level is None:
            return None
        return Known(
            actuator=self._actuator,
            allowed=self.allowed,
            fill_level=self.fill_level,
            own_kw=self._own_kw,
            kwh=self.energy_kwh,
            kwh_per_level=level_in_kwh(self._description, 1.0, self.energy_kwh),
            mode_id=self._mode_id,
            timers=dict(self._timers),
            outlook=self._outlook,
        )

    def decide(self, aim: Aim) -> Setting | None:
        """What to tell the device now; None for nothing, because it is right already or something is not known."""
        now = self._clock()
        for order in [order for order in self.ahead if order.at <= now]:
            if order.status in ("ACCEPTED", "STARTED", "SUCCEEDED"):
                self._begin(order)  # it begins by itself
            else:
                self.ahead.remove(order)
        if self.power_kw is None:
            return None
        self._see_own_will()
        known = self.known()
        setting = known.setting(aim, now) if known else None
        if setting is None:
            return None
        told = self.order
        in_time = told is not None and not told.stale and now - told.at < AGAIN_SECONDS
        if told is not None and in_time and abs(told.power_kw - setting.power_kw) <= SAME_KW:
            return None  # told just now
        settled = told is None or not told.open or not in_time
        if settled and self.power_kw is not None and abs(self.power_kw - setting.power_kw) <= SAME_KW:
            return None  # it does so already
        if told is None and aim.wanted_kw is None and aim.ceiling_kw is None:
            return None  # never told anything, and nothing to tell
        return setting

    async def instruct(self, setting: Setting, aim: Aim, at: float | None = None) -> Order:
        """Tell the device; it has to begin at once, or at a time to come."""
        if self.door is None or self._actuator is None or self._own_kw is None:
            raise ValueError(f"{self.name} cannot be told anything now")
        now = self._clock()
        order = Order(
            own_kw=self._own_kw,
            power_kw=setting.power_kw,
            at=now if at is None else at,
            mode_id=setting.mode_id,
            factor=setting.factor,
            limit_kw=aim.ceiling_kw,
            reason=aim.reason,
            events=aim.events,
            times={"SENT": now},
        )
        instruction = FRBCInstruction(
            message_id=new_id(),
            id=uuid.UUID(order.id),
            actuator_id=self._actuator.id,
            operation_mode=setting.mode_id,
            operation_mode_factor=setting.factor,
            execution_time=datetime.fromtimestamp(order.at, UTC),
            abnormal_condition=False,
        )
        if at is None:
            self.order = order
        else:
            self.ahead = sorted([*self.ahead, order], key=lambda one: one.at)
        self.touched[order.id] = self._orders[order.id] = order
        while len(self._orders) > REMEMBERED:
            self._orders.pop(next(iter(self._orders)))
        INSTRUCTIONS.labels("sent").inc()
        await self.door.send(instruction)
        return order

    async def prepare(self, steps: Sequence[Step]) -> None:
        """Tell the device what comes, and take back what no longer comes."""
        now, door = self._clock(), self.door
        if door is None:
            return
        coming = list(steps) if self._takes_ahead else []
        # what is due is no longer among the steps, and may have begun without our having heard
        for order in [order for order in self.ahead if order.at > now]:
            same = next((step for step in coming if _is(order, step)), None)
            if same is not None:
                coming.remove(same)
                continue
            self.ahead.remove(order)
            revocation = RevokeObject(
                message_id=new_id(), object_type=RevokableObjects.FRBC_Instruction, object_id=uuid.UUID(order.id)
            )
            await door.send(revocation)
            log.info("instruction taken back", extra={"resource": self.name, "instruction": order.id})
        for step in coming:
            if step.at - now >= AHEAD_SECONDS:
                order = await self.instruct(step.setting, step.aim, step.at)
                log.info("device told ahead", extra=self.line(order))

    def line(self, order: Order) -> dict[str, Any]:
        """An order as fields of a log line."""
        return {
            "resource": self.name,
            "instruction": order.id,
            "power_kw": order.power_kw,
            "limit_kw": order.limit_kw,
            "reason": order.reason,
            "event_ids": order.events,
            "execution_time": datetime.fromtimestamp(order.at, UTC).isoformat(timespec="milliseconds"),
        }

    def orders(self) -> list[Order]:
        """What has to be remembered: what it was told to do now and later."""
        return [*([self.order] if self.order else []), *self.ahead]

    # --- what it reports -----------------------------------------------------------------------------------------

    def stored_kwh(self) -> float | None:
        """Energy in the storage; None when it is not known."""
        if self.fill_level is None or self._description is None:
            return None
        return level_in_kwh(self._description, self.fill_level, self.energy_kwh)

    def present_kw(self) -> float | None:
        """Its power: measured, where that is recent, else what its actuator says."""
        measured = self.measured()
        return measured[0] if measured else self.power_kw

    def measured(self) -> tuple[float, float] | None:
        """Its last measurement in kW and when that came, seconds since 1970; None where there is no recent one."""
        recent = self.door is not None and self._measured and self._clock() - self._measured[1] <= MEASURED_SECONDS
        return self._measured if recent else None


def _is(order: Order, step: Step) -> bool:
    """Whether an order that was told ahead is what a step asks for."""
    # what is asked of all storages together moves a little with each of them
    tolerance = 0.5 if step.aim.reason in ("dispatch", "charge") else SAME_KW
    return (
        not order.stale
        and abs(order.at - step.at) < 0.5
        and order.mode_id == step.setting.mode_id
        and abs(order.power_kw - step.setting.power_kw) <= tolerance
    )
