"""Handshake, roles, errors, credit, leases and what is sent again."""

from __future__ import annotations

import pytest

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.codec import ProtocolError, encode_frame
from prefect_lite.protocol.leases import MAX_HELD
from prefect_lite.protocol.peer_session import MAX_PARKED
from prefect_lite.protocol.session import MAX_ERRORS
from tests.protocol.pairs import MIB, broker, connected, greet, move, peer, run_id
from tests.protocol.samples import OTHER, RUN


def finish(token: str = "t1", result: bytes | None = None, message: str = "") -> m.Finish:
    return m.Finish(RUN, token, "COMPLETED", "Completed", message, 1, 0.1, result)


class TestHandshake:
    def test_hello_and_welcome(self) -> None:
        one, other = peer("client"), broker()
        one.connect()
        [hello] = move(one, other)
        assert hello == other.hello == m.Hello(0, "client", "default")
        assert other.role == "client"
        other.welcome("s1", b"secret", 3)
        [welcome] = move(other, one)
        assert (
            welcome == one.welcome == m.Welcome(0, "s1", b"secret", 3, False, [], 15.0, 5.0, MIB, "b1", "0.1")
        )

    def test_the_next_connection_asks_for_the_same_session(self) -> None:
        one, _ = connected()
        one.connect()
        assert not one.welcomed
        [hello] = move(one, broker())
        assert isinstance(hello, m.Hello)
        assert (hello.session, hello.secret, hello.epoch) == ("s1", b"secret", 1)

    def test_without_a_connection_nothing_piles_up_for_the_old_one(self) -> None:
        one, other = connected(free=1)
        other.push_run(RUN, "t1", "k", 1, 0, b"")
        move(other, one)
        one.disconnected()
        assert not one.welcomed
        assert one.next_deadline() is None
        one.started(RUN, "t1", 1)
        for number in range(MAX_PARKED + 5):
            one.send(m.Log(RUN, [[20, number, "n", "line"]]))
        assert one.backlog == 0
        one.connect()
        sent = greet(one, broker(), resumed=True, held=[[RUN, "t1"]])
        logs = [message for message in sent if isinstance(message, m.Log)]
        assert len(logs) == MAX_PARKED
        assert logs[0].lines[0][1] == 5
        assert m.Started(RUN, "t1", 1) in sent

    @pytest.mark.parametrize("message", [m.Ready(1), m.Submit(RUN, "k", b""), m.Chunk(1, 0, b"x")])
    def test_anything_before_hello_is_fatal(self, message: m.Message) -> None:
        other = broker()
        with pytest.raises(ProtocolError, match="handshake"):
            other.receive(encode_frame([message]))
        assert other.closed
        one = peer()
        one.connect()
        [error] = move(other, one)
        assert isinstance(error, m.Error)
        assert error.fatal
        assert one.closed

    def test_a_second_hello_is_fatal_before_and_after_welcome(self) -> None:
        hello = encode_frame([m.Hello(0, "client", "default")])
        other = broker()
        other.receive(hello)
        with pytest.raises(ProtocolError, match="handshake"):
            other.receive(hello)
        _, other = connected("client")
        with pytest.raises(ProtocolError, match="handshake"):
            other.receive(hello)

    def test_a_role_the_token_does_not_give_is_fatal(self) -> None:
        other = broker(roles=frozenset({"client"}))
        with pytest.raises(ProtocolError, match="role"):
            other.receive(encode_frame([m.Hello(0, "worker", "default")]))

    def test_a_closed_session_takes_nothing(self) -> None:
        _, other = connected()
        with pytest.raises(ProtocolError):
            other.receive(b"\xc1")
        assert other.receive(encode_frame([m.Ready(1)])) == []


class TestErrors:
    def test_a_verb_of_another_role_is_refused_and_the_connection_stays(self) -> None:
        one, other = connected("client")
        assert other.receive(encode_frame([m.Ready(5), m.Query(1, "stats")])) == [m.Query(1, "stats")]
        [error] = move(other, one)
        assert isinstance(error, m.Error)
        assert (error.code, error.fatal) == ("forbidden", False)

    def test_a_broker_s_mistake_is_refused_by_the_peer(self) -> None:
        one, other = connected("client")
        assert one.receive(encode_frame([m.Run(1, RUN, "t", "k", 1, 0, b"")])) == []
        [error] = move(one, other)
        assert isinstance(error, m.Error)

    def test_an_invalid_submit_is_answered_by_refused(self) -> None:
        one, other = connected("client")
        one.submit(m.Submit(RUN, "k", b""))
        bad = m.Submit(RUN, "k", b"")._replace(priority=77)
        other.receive(encode_frame([bad]))
        [refused] = move(other, one)
        assert isinstance(refused, m.Refused)
        assert (refused.run_id, refused.code) == (RUN, "invalid")

    def test_an_invalid_query_is_answered(self) -> None:
        one, other = connected("client")
        deep: list[object] = []
        for _ in range(20):
            deep = [deep]
        other.receive(encode_frame([m.Query(4, "x", deep)]))
        [answer] = move(other, one)
        assert isinstance(answer, m.Answer)
        assert (answer.request, answer.ok, answer.value[0]) == (4, False, "invalid")

    def test_endless_errors_are_fatal(self) -> None:
        _, other = connected("client")
        frame = encode_frame([m.Ready(5)])
        for _ in range(MAX_ERRORS):
            other.receive(frame)
        with pytest.raises(ProtocolError, match="too_many_errors"):
            other.receive(frame)

    def test_an_invalid_error_is_not_answered_by_an_error(self) -> None:
        _, other = connected("client")
        with pytest.raises(ProtocolError, match="malformed"):
            other.receive(b"\x91\x92\xa5ERROR\x05")

    def test_a_large_submit_is_refused_by_name_when_over_the_limit(self) -> None:
        one, other = peer("client", max_payload_bytes=4 * MIB), broker(max_payload_bytes=4 * MIB)
        one.connect()
        greet(one, other)
        other._inbox.max_payload_bytes = MIB
        one.submit(m.Submit(RUN, "k", b"x" * (2 * MIB)))
        assert move(one, other) == []
        [refused] = move(other, one)
        assert isinstance(refused, m.Refused)
        assert refused.code == "payload_too_large"


class TestSubmits:
    def test_impossible_ones_are_told_to_the_caller(self) -> None:
        one, _ = connected("client")
        with pytest.raises(ProtocolError, match="invalid"):
            one.submit(m.Submit(RUN, "k", b"", priority=10))
        with pytest.raises(ProtocolError, match="payload_too_large"):
            one.submit(m.Submit(RUN, "k", b"x" * (MIB + 1)))
        assert not one.has_data

    def test_sent_again_until_answered(self) -> None:
        one, other = connected("client")
        first, second = m.Submit(RUN, "k", b"1"), m.Submit(OTHER, "k", b"x" * 100_000)
        one.submit(first)
        one.submit(second)
        assert move(one, other) == [first, second]
        other.send(m.Accepted([RUN]))
        assert move(other, one) == [m.Accepted([RUN])]
        one.connect()
        other = broker()
        assert greet(one, other) == [second]
        other.send(m.Accepted([RUN, OTHER], notices=[["k", "nobody"]]))
        assert move(other, one) == [m.Accepted([OTHER], notices=[["k", "nobody"]])]
        other.send(m.Accepted([OTHER]))
        other.send(m.Refused(OTHER, "queue_full", ""))
        assert move(other, one) == []
        assert one.unanswered == 0

    def test_those_made_without_a_connection_follow_the_welcome(self) -> None:
        one = peer("client")
        one.submit(m.Submit(RUN, "k", b""))
        one.connect()
        one.submit(m.Submit(OTHER, "k", b""))
        got = greet(one, broker())
        assert got == [m.Submit(RUN, "k", b""), m.Submit(OTHER, "k", b"")]

    def test_an_alias_answers_the_id_that_was_asked(self) -> None:
        one, other = connected("client")
        one.submit(m.Submit(RUN, "k", b"", idempotency_key="a"))
        move(one, other)
        other.send(m.Accepted([], [[RUN, OTHER]]))
        assert move(other, one) == [m.Accepted([], [[RUN, OTHER]])]
        assert one.unanswered == 0

    def test_an_alias_that_no_key_asked_for_is_refused(self) -> None:
        one, other = connected("client")
        one.submit(m.Submit(RUN, "k", b"", watch=True))
        move(one, other)
        other.send(m.Accepted([RUN], [[RUN, OTHER]]))
        [refused] = move(other, one)
        assert isinstance(refused, m.Refused)
        assert (refused.run_id, refused.code) == (RUN, "unexpected")
        assert one.unanswered == 0
        other.send(m.RunState(RUN, "COMPLETED"))
        assert move(other, one) == []

    def test_what_is_withdrawn_is_not_sent_again(self) -> None:
        one, other = connected("client")
        one.submit(m.Submit(RUN, "k", b"", watch=True))
        one.submit(m.Submit(OTHER, "k", b""))
        one.ask(m.Query(1, "run"))
        one.withdraw([RUN])
        one.withdraw_question(1)
        one.disconnected()
        one.connect()
        other = broker()
        assert greet(one, other) == [m.Submit(OTHER, "k", b"")]
        other.send(m.Accepted([RUN, OTHER]))
        assert move(other, one) == [m.Accepted([OTHER])]

    def test_a_broker_with_a_smaller_limit_refuses_what_waits(self) -> None:
        one, other = peer("client", max_payload_bytes=2 * MIB), broker()
        one.submit(m.Submit(RUN, "k", b"x" * (MIB + 1)))
        one.connect()
        move(one, other)
        other.welcome("s1", b"", 1)
        [welcome, refused] = move(other, one)
        assert isinstance(welcome, m.Welcome)
        assert isinstance(refused, m.Refused)
        assert refused.code == "payload_too_large"


class TestWatches:
    def test_renewed_after_a_reconnect_until_the_run_ended(self) -> None:
        one, other = connected("client")
        one.watch([RUN, OTHER])
        assert move(one, other) == [m.Watch([RUN, OTHER])]
        running, ended = m.RunState(RUN, "RUNNING"), m.RunState(RUN, "COMPLETED", result=b"r" * 200_000)
        for state in (running, ended, ended):
            other.send(state)
        assert move(other, one) == [running, ended]
        one.connect()
        assert greet(one, broker()) == [m.Watch([OTHER])]

    def test_waits_for_accepted(self) -> None:
        one, other = connected("client")
        one.submit(m.Submit(RUN, "k", b"x" * 100_000))
        one.watch([RUN, OTHER])
        assert {type(message) for message in move(one, other)} == {m.Watch, m.Submit}
        other.send(m.Accepted([RUN]))
        move(other, one)
        assert move(one, other) == [m.Watch([RUN])]

    def test_unwatch(self) -> None:
        one, other = connected("client")
        one.watch([RUN])
        one.unwatch([RUN, OTHER])
        assert move(one, other) == [m.Watch([RUN]), m.Unwatch([RUN])]
        other.send(m.RunState(RUN, "COMPLETED"))
        assert move(other, one) == []

    def test_an_unknown_run_ends_the_watch(self) -> None:
        one, other = connected("client")
        one.watch([RUN])
        move(one, other)
        other.send(m.RunState(RUN))
        assert move(other, one) == [m.RunState(RUN)]
        one.connect()
        assert greet(one, broker()) == []


class TestOtherMessages:
    def test_kept_until_there_is_a_connection(self) -> None:
        one = peer("worker")
        log = m.Log(RUN, [[20, 1, "x", "y"]])
        one.send(log)
        one.connect()
        assert greet(one, broker()) == [log]
        one.connect()
        assert greet(one, broker()) == []

    def test_cancel_and_questions_are_repeated_until_their_answer(self) -> None:
        one, other = connected("client")
        one.send(m.Cancel(1, RUN))
        one.ask(m.Query(2, "why", RUN))
        one.send(m.Query(3, "stop"))
        assert len(move(one, other)) == 3
        other.send(m.Answer(1, True, "cancelled"))
        move(other, one)
        one.connect()
        assert greet(one, broker()) == [m.Query(2, "why", RUN)]


class TestCredit:
    def test_follows_runs_and_free_slots(self) -> None:
        one, other = peer(), broker()
        one.serve(["k"])
        one.set_free(2)
        one.connect()
        assert greet(one, other) == [m.Serve(["k"]), m.Ready(2)]
        assert other.credit == 2
        assert other.push_run(RUN, "t1", "k", 1, 0, b"") == 1
        assert other.credit == 1
        assert move(other, one) == [m.Run(1, RUN, "t1", "k", 1, 0, b"")]
        one.set_free(1)
        assert not one.has_data
        one.set_free(2)
        assert move(one, other) == [m.Ready(3)]
        assert other.credit == 2
        one.set_free(0)  # can't be taken back
        assert not one.has_data

    def test_an_old_ready_does_not_shrink_it_and_a_huge_one_is_capped(self) -> None:
        _, other = connected()
        for limit in (10, 5, 1 << 40):
            other.receive(encode_frame([m.Ready(limit)]))
            assert other.credit >= 10
        assert other.credit == MAX_HELD

    def test_held_runs_bound_the_credit(self) -> None:
        one, other = peer(), broker()
        one.set_free(1 << 40)
        one.connect()
        greet(one, other)
        assert other.credit == MAX_HELD
        for number in range(MAX_HELD):
            other.push_run(run_id(number), f"t{number}", "k", 1, 0, b"")
        move(other, one)
        one.set_free(1_000)
        assert not one.has_data
        one.tick(0.0)
        one.tick(100.0)
        [renew] = move(one, other)
        assert isinstance(renew, m.Renew)
        assert len(renew.held) == MAX_HELD

    def test_starts_anew_on_the_next_connection(self) -> None:
        one, other = peer(), broker()
        one.set_free(2)
        one.connect()
        greet(one, other)
        other.push_run(RUN, "t1", "k", 1, 0, b"")
        move(other, one)
        one.set_free(1)
        one.connect()
        other = broker()
        assert greet(one, other, resumed=True, held=[[RUN, "t1"]]) == [m.Ready(1), m.Renew(0, [[RUN, "t1"]])]
        assert other.credit == 1
        assert other.push_run(OTHER, "t2", "k", 1, 0, b"") == 1

    def test_a_run_beyond_the_credit_is_given_back(self) -> None:
        one, other = connected()
        other.push_run(RUN, "t1", "k", 1, 0, b"")
        assert move(other, one) == []
        assert move(one, other)[-1] == m.Release(RUN, "t1")
        assert other.credit == 0
        other.send(m.Done([[RUN, "t1", "ok"]]))
        move(other, one)
        assert one.held == []


class TestLeases:
    def test_a_run_leaves_the_list_when_its_finish_is_acknowledged(self) -> None:
        one, other = peer(), broker()
        one.set_free(1)
        one.connect()
        greet(one, other)
        other.push_run(RUN, "t1", "k", 1, 0, b"")
        move(other, one)
        one.started(RUN, "t1", 1)
        one.finish(finish())
        assert one.held == [[RUN, "t1"]]
        assert move(one, other) == [m.Started(RUN, "t1", 1), finish()]
        assert other.pushed == [[RUN, "t1"]]
        done = m.Done([[RUN, "t1", "ok"]])
        other.send(done)
        other.send(done)
        assert move(other, one) == [done]
        assert one.held == other.pushed == []

    def test_commits_and_starts_are_sent_again(self) -> None:
        one, other = peer(), broker()
        one.set_free(2)
        one.connect()
        greet(one, other)
        other.push_run(RUN, "t1", "k", 1, 0, b"")
        other.push_run(OTHER, "t2", "k", 1, 0, b"")
        move(other, one)
        one.started(RUN, "t1", 1)
        one.started(OTHER, "t2", 1)
        one.finish(finish())
        move(one, other)
        one.connect()
        one.retry(m.Retry(OTHER, "t2", 1.0, 2))
        again = greet(one, broker(), resumed=True, held=one.held)
        assert again[-2:] == [finish(), m.Retry(OTHER, "t2", 1.0, 2)]

    def test_the_first_commit_of_a_lease_stands(self) -> None:
        one, other = connected()
        one.release(m.Release(RUN, "t1"))
        one.finish(finish())
        assert move(one, other) == [m.Release(RUN, "t1")]

    def test_long_messages_are_cut_and_large_results_are_the_caller_s(self) -> None:
        one, other = connected()
        one.finish(finish(message="x" * 100_000))
        [sent] = move(one, other)
        assert isinstance(sent, m.Finish)
        assert len(sent.message) == 65_536
        with pytest.raises(ProtocolError, match="payload_too_large"):
            one.finish(finish("t2", b"x" * (MIB + 1)))
        one.finish(finish("t2"))

    def test_a_large_run_that_is_overtaken_is_not_taken_for_lost(self) -> None:
        one, other = peer(), broker()
        one.set_free(2)
        one.connect()
        greet(one, other)
        other.push_run(RUN, "t1", "k", 1, 0, b"x" * 700_000)
        other.push_run(OTHER, "t2", "k", 1, 0, b"")
        first, *rest = [*other.data_to_send()]
        assert [type(message) for message in one.receive(first)] == [m.Run]
        one.tick(0.0)
        one.tick(5.0)
        [renew] = move(one, other)
        assert renew == m.Renew(0, [[OTHER, "t2"]])
        assert other.unreceived_and_unheld(renew) == []
        for frame in rest:
            one.receive(frame)
        one.tick(10.0)
        [renew] = move(one, other)
        assert isinstance(renew, m.Renew)
        assert renew.highest == 2
        assert other.unreceived_and_unheld(renew) == []

    def test_renew_tells_which_runs_never_arrived(self) -> None:
        _, other = connected()
        for number in range(1, 5):
            other.push_run(run_id(number), f"t{number}", "k", 1, 0, b"")
        renew = m.Renew(3, [[run_id(2), "t2"]])
        assert other.unreceived_and_unheld(renew) == [[run_id(1), "t1"], [run_id(3), "t3"]]
        assert other.unreceived_and_unheld(renew) == []
        assert other.pushed == [[run_id(2), "t2"], [run_id(4), "t4"]]

    def test_resume_finds_runs_lost_on_both_sides(self) -> None:
        one, other = peer(), broker()
        one.set_free(3)
        one.connect()
        greet(one, other)
        for number in (1, 2, 3):
            other.push_run(run_id(number), f"t{number}", "k", 1, 0, b"")
        move(other, one)
        one.finish(m.Finish(run_id(3), "t3", "COMPLETED", "", "", 1, 0.0))
        one.connect()
        other = broker()
        move(one, other)
        # The store still has 2 and a RUN (9) that was under way; it has given up 1 and 3.
        other.welcome("s1", b"secret", 2, resumed=True, held=[[run_id(2), "t2"], [run_id(9), "t9"]])
        [_, revoke] = move(other, one)
        assert revoke == m.Revoke([[run_id(1), "t1"]])
        got = move(one, other)
        [renew] = [message for message in got if isinstance(message, m.Renew)]
        assert other.unreceived_and_unheld(renew) == [[run_id(9), "t9"]]
        assert [message for message in got if isinstance(message, m.Finish)]

    def test_a_new_session_loses_all_leases_but_commits_are_still_told(self) -> None:
        one, other = peer(), broker()
        one.set_free(2)
        one.connect()
        greet(one, other)
        other.push_run(RUN, "t1", "k", 1, 0, b"")
        other.push_run(OTHER, "t2", "k", 1, 0, b"")
        move(other, one)
        one.finish(finish())
        one.connect()
        other = broker()
        move(one, other)
        other.welcome("s2", b"new", 1)
        assert move(other, one)[1:] == [m.Revoke([[OTHER, "t2"]])]
        assert finish() in move(one, other)
        other.send(m.Done([[RUN, "t1", "stale"]]))
        assert move(other, one) == [m.Done([[RUN, "t1", "stale"]])]
        assert one.held == []

    def test_the_same_token_is_executed_once(self) -> None:
        one, other = peer(), broker()
        one.set_free(2)
        one.connect()
        greet(one, other)
        for _ in range(2):
            other.push_run(RUN, "t1", "k", 1, 0, b"")
        assert len(move(other, one)) == 1
        move(one, other)
        assert other.credit == 1  # the dropped one gave its slot back
        one.release(m.Release(RUN, "t1"))
        other.send(m.Done([[RUN, "t1", "ok"]]))
        other.push_run(RUN, "t1", "k", 1, 0, b"")
        assert [type(message) for message in move(other, one)] == [m.Done]

    def test_revoke_and_cancel_that_overtake_their_run(self) -> None:
        one, other = peer(), broker()
        one.set_free(2)
        one.connect()
        greet(one, other)
        other.push_run(RUN, "t1", "k", 1, 0, b"")
        other.push_run(OTHER, "t2", "k", 1, 0, b"")
        other.send(m.Cancel(0, RUN, "t1"))
        other.send(m.Revoke([[OTHER, "t2"]]))
        assert [*other.data_to_send()]
        other.push_run(RUN, "t3", "k", 1, 0, b"")
        one.receive(encode_frame([m.Cancel(0, RUN, "t1"), m.Revoke([[OTHER, "t2"]])]))
        run = m.Run(1, RUN, "t1", "k", 1, 0, b"")
        got = one.receive(encode_frame([run, m.Run(2, OTHER, "t2", "k", 1, 0, b"")]))
        assert got == [run, m.Cancel(0, RUN, "t1")]

    def test_revoke_of_a_run_that_is_finished_waits_for_done(self) -> None:
        one, other = peer(), broker()
        one.set_free(2)
        one.connect()
        greet(one, other)
        other.push_run(RUN, "t1", "k", 1, 0, b"")
        other.push_run(OTHER, "t2", "k", 1, 0, b"")
        move(other, one)
        one.finish(finish())
        revoke = m.Revoke([[RUN, "t1"], [OTHER, "t2"]])
        assert one.receive(encode_frame([revoke])) == [m.Revoke([[OTHER, "t2"]])]
        assert one.receive(encode_frame([m.Revoke([])])) == []
        one.forget("t2")
        assert one.held == [[RUN, "t1"]]

    def test_a_run_that_cannot_be_read_is_given_back(self) -> None:
        one, other = peer(), broker()
        one.set_free(2)
        one.connect()
        greet(one, other)
        bad = m.Run(1, RUN, "t1", "", 1, 0, b"")
        assert one.receive(encode_frame([bad])) == []
        assert m.Release(RUN, "t1") in move(one, other)


class TestTime:
    def test_renew_is_sent_on_the_beat(self) -> None:
        one, other = connected("client")
        assert one.next_deadline() == 0.0
        one.tick(100.0)
        assert not one.has_data
        assert one.next_deadline() == 105.0
        one.tick(104.9)
        assert not one.has_data
        one.tick(105.0)
        assert move(one, other) == [m.Renew(0, [])]

    def test_nothing_is_due_before_welcome(self) -> None:
        one = peer()
        one.connect()
        assert one.next_deadline() is None
        one.tick(100.0)

    def test_silence_for_three_quarters_of_a_lease_is_fatal_for_either_side(self) -> None:
        for session in connected():
            for now in (0.0, 5.0, 10.0):
                session.tick(now)
            assert session.next_deadline() == 11.25, "before the next beat"
            with pytest.raises(ProtocolError, match="silent"):
                session.tick(11.25)
            assert session.closed
            assert session.next_deadline() is None

    def test_silence_counts_from_the_last_frame(self) -> None:
        one, other = connected()
        one.tick(0.0)
        other.send(m.Revoke([]))
        move(other, one)
        one.heard_at = 4.0  # the clock of whoever handed the frame over
        one.tick(5.0)
        one.tick(10.0)
        assert one.next_deadline() == 15.0
        one.tick(15.0)
        assert one.next_deadline() == 15.25
        with pytest.raises(ProtocolError, match="silent"):
            one.tick(15.25)

    def test_whoever_takes_what_is_sent_is_there(self) -> None:
        one, _ = connected()
        one.tick(0.0)
        one.taken(4.0)
        for now in (5.0, 10.0, 15.0):
            one.tick(now)
        assert one.next_deadline() == 15.25

    @pytest.mark.parametrize(("lease", "renew"), [(15.0, 5.0), (1.5, 0.5), (15.0, 14.0), (15.0, 1.0)])
    def test_one_beat_in_time_is_enough(self, lease: float, renew: float) -> None:
        one, _ = connected()
        one.lease_seconds, one.renew_seconds = lease, renew
        assert renew < one.silence_seconds < lease

    def test_a_process_that_was_frozen_reads_before_it_judges(self) -> None:
        one, _ = connected()
        one.tick(0.0)
        one.tick(5.0)
        one.tick(100.0)
        one.tick(105.0)
