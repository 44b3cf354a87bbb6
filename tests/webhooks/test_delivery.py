"""Deliveries to a real receiver: signed as the OpenAI SDK checks, again until taken, never to a private place."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import openai
import pytest
from pydantic import SecretStr

from app import db
from app.embedded.process import launch_command
from app.errors import InputUrlRefused, InvalidParameter, WrongSecretsKey
from app.fetch.client import SafeFetcher
from app.sealing import SecretBox
from app.values import task_public_id
from app.webhooks.deliver import PER_ACCOUNT, PER_LANE, RETRIES, TICK_S, Deliverer, wait_after
from app.webhooks.endpoints import Endpoints
from app.webhooks.secrets import Owner, Secrets
from app.webhooks.signing import SECRET_BYTES, headers, mint_secret
from tests.factories import SECRETS_KEY, make_account
from tests.plugins.gateway import ROOT, as_environment
from tests.webhooks.conftest import until

CLIENT = openai.OpenAI(api_key="unused")


def unwrapped(received, secret):
    """What the SDK makes of a request. Raises when the signature is not right."""
    return CLIENT.webhooks.unwrap(received.body, received.headers, secret=secret)


def is_signed_with(received, secret):
    try:
        unwrapped(received, secret)
    except openai.InvalidWebhookSignatureError:
        return False
    return True


async def test_the_sdk_verifies_a_delivery_and_finds_the_task_in_it(hooks, caller):
    _, url, secret = await hooks.endpoint(caller)
    task_id = await hooks.failed_task(caller)

    await hooks.deliver()

    [received] = hooks.receiver.at(url)
    event = unwrapped(received, secret)
    assert (event.type, event.data.id) == ("image.failed", task_public_id(task_id))
    document = json.loads(received.body)
    assert document.keys() == {"id", "object", "type", "created_at", "data"}
    assert document["id"] == received.headers["webhook-id"]
    assert document["id"].startswith("evt_")
    assert received.headers["content-type"] == "application/json"
    assert not is_signed_with(received, mint_secret())
    [row] = await hooks.rows(caller)
    assert (row["state"], row["tries"], row["last_status"]) == ("delivered", 1, 200)


async def test_nothing_is_sent_twice_when_it_was_taken(hooks, caller):
    _, url, _ = await hooks.endpoint(caller)
    await hooks.failed_task(caller)

    for _ in range(3):
        await hooks.all_due(caller)
        await hooks.deliver()

    assert len(hooks.receiver.at(url)) == 1


def test_eight_tries_spread_over_a_day():
    waits = [wait_after(tries, 0.5) for tries in range(1, 9)]

    assert waits == [*(timedelta(seconds=wait) for wait in RETRIES), None]
    assert len(waits) == 8
    assert timedelta(hours=23) < sum(waits[:-1], timedelta()) <= timedelta(hours=24)
    assert (wait_after(2, 0.0), wait_after(2, 1.0)) == (timedelta(seconds=27), timedelta(seconds=33))


def test_a_secret_is_of_the_standard_padded_alphabet():
    import base64

    secrets = [mint_secret().removeprefix("whsec_") for _ in range(50)]

    assert {len(base64.b64decode(secret, validate=True)) for secret in secrets} == {SECRET_BYTES}


async def test_a_failed_try_comes_again_with_the_same_id_and_bytes_and_a_fresh_time(hooks, caller):
    _, url, secret = await hooks.endpoint(caller)
    hooks.receiver.will_answer(url, 500, 302)
    await hooks.failed_task(caller)

    waits = []
    for _ in range(3):
        await hooks.deliver()
        [row] = await hooks.rows(caller)
        waits.append(row["wait_s"])
        await hooks.all_due(caller)

    tries = hooks.receiver.at(url)
    assert 4 < waits[0] < 6
    assert 26 < waits[1] < 34
    assert (row["state"], row["tries"]) == ("delivered", 3)
    assert len({(one.headers["webhook-id"], one.body) for one in tries}) == 1
    assert all(is_signed_with(one, secret) for one in tries)
    assert len(tries) == 3


async def test_after_eight_failed_tries_it_is_given_up(hooks, caller):
    endpoint, url, _ = await hooks.endpoint(caller)
    hooks.receiver.will_answer(url, *[503] * 20)
    await hooks.failed_task(caller)

    for _ in range(10):
        await hooks.deliver()
        await hooks.all_due(caller)

    [delivery], _ = await hooks.services.webhook_log.list(caller.account.id, endpoint, limit=10)
    assert (delivery.state, delivery.tries, len(hooks.receiver.at(url))) == ("failed", 8, 8)
    assert [(attempt.status, attempt.error) for attempt in delivery.attempts] == [(503, "status")] * 8


async def test_410_disables_the_endpoint_and_ends_what_waits_for_it(hooks, caller):
    endpoint, url, _ = await hooks.endpoint(caller)
    await hooks.failed_task(caller)
    hooks.receiver.will_answer(url, 500)
    await hooks.deliver()
    hooks.receiver.will_answer(url, 410)
    await hooks.failed_task(caller)

    await hooks.deliver()
    await hooks.failed_task(caller)
    await hooks.all_due(caller)
    await hooks.deliver()

    found = await hooks.services.webhooks.get(caller.account.id, endpoint)
    assert (found.state, found.disabled_reason) == ("disabled", "gone")
    assert [(row["state"], row["last_error"]) for row in await hooks.rows(caller)] == [
        ("failed", "endpoint_disabled"),
        ("failed", "status"),
    ]
    assert len(hooks.receiver.at(url)) == 2


@pytest.mark.parametrize("keep_old", [True, False])
async def test_a_replaced_secret_signs_for_a_day_more_if_so_wished(hooks, caller, keep_old):
    endpoint, url, old = await hooks.endpoint(caller)

    _, new = await hooks.services.webhooks.rotate_secret(caller.account.id, endpoint, keep_old=keep_old)
    await hooks.failed_task(caller)
    await hooks.deliver()
    await db.once(
        hooks.services.engine,
        "UPDATE webhook_secrets SET ends_at = now() WHERE account_id = $1 AND ends_at IS NOT NULL",
        (caller.account.id,),
    )
    await hooks.failed_task(caller)
    await hooks.deliver()

    during, after = hooks.receiver.at(url)
    assert [is_signed_with(during, secret) for secret in (old, new)] == [keep_old, True]
    assert [is_signed_with(after, secret) for secret in (old, new)] == [False, True]
    assert len(during.headers["webhook-signature"].split()) == 1 + keep_old


async def test_a_one_off_url_is_signed_with_the_account_s_own_secret(hooks, caller, make_caller):
    url = hooks.receiver.url()
    other = await make_caller()
    await hooks.failed_task(caller, webhook_url=url)

    await hooks.deliver()

    [received] = hooks.receiver.at(url)
    assert is_signed_with(received, await hooks.services.webhook_secrets.of_account(caller.account.id))
    assert not is_signed_with(received, await hooks.services.webhook_secrets.of_account(other.account.id))


async def test_two_that_need_the_account_s_first_secret_at_once_get_the_same(hooks, caller):
    found = await asyncio.gather(*(hooks.services.webhook_secrets.of_account(caller.account.id) for _ in range(5)))

    assert len(set(found)) == 1


async def test_secrets_lie_sealed_and_open_only_in_their_own_row(hooks, caller, make_caller):
    _, url, secret = await hooks.endpoint(caller)
    thief = await make_caller()
    _, stolen_url, _ = await hooks.endpoint(thief)
    engine = hooks.services.engine
    rows = await db.once(engine, "SELECT * FROM webhook_secrets WHERE account_id = $1", (caller.account.id,))
    assert secret.encode() not in b"".join(bytes(row["ciphertext"]) for row in rows)

    await db.once(
        engine,
        "UPDATE webhook_secrets SET ciphertext = $2, nonce = $3 WHERE account_id = $1",
        (thief.account.id, rows[0]["ciphertext"], rows[0]["nonce"]),
    )
    await hooks.failed_task(thief)
    await hooks.deliver()

    assert hooks.receiver.at(stolen_url) == hooks.receiver.at(url) == []
    [row] = await hooks.rows(thief)
    assert (row["state"], row["last_error"]) == ("pending", "no_secret")


async def test_no_delivery_reaches_a_private_place(hooks, caller):
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        port = canary.getsockname()[1]
        _, url, _ = await hooks.endpoint(caller, "video.failed")
        await hooks.failed_task(caller, operation="video.generate")
        hooks.receiver.location = f"http://127.0.0.1:{port}/x"
        hooks.receiver.will_answer(url, 307)
        for private in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "169.254.169.254", "10.0.0.1"):
            await hooks.failed_task(caller, webhook_url=f"http://{private}/x")

        await hooks.deliver()

        with pytest.raises(BlockingIOError):
            canary.accept()
    outcomes = [
        (row["url"] is None, row["state"], row["last_status"], row["last_error"]) for row in await hooks.rows(caller)
    ]
    assert set(outcomes) == {(True, "pending", 307, "status"), (False, "pending", None, "refused")}
    assert len(hooks.receiver.at(url)) == 1


async def test_a_name_that_resolves_to_a_private_address_is_refused(hooks, caller):
    class Rebound:
        async def resolve(self, host, port):
            return ["203.0.114.9", "127.0.0.1"]

    services = hooks.services
    fetcher = SafeFetcher(services.settings, Rebound())
    await hooks.failed_task(caller, webhook_url="http://rebound.example/x")

    await Deliverer(services.engine, services.webhook_secrets, fetcher).once()

    [row] = await hooks.rows(caller)
    assert row["last_error"] == "refused"


async def test_an_endpoint_that_hangs_keeps_no_other_waiting(hooks, caller, make_caller):
    endpoint, slow, _ = await hooks.endpoint(caller)
    hooks.receiver.hanging.add(slow.rpartition("/")[2])
    for _ in range(6 * PER_LANE):
        await hooks.failed_task(caller)
    other = await make_caller()
    _, quick, _ = await hooks.endpoint(caller, "video.failed")
    _, elsewhere, _ = await hooks.endpoint(other)

    services = hooks.services
    deliverer = Deliverer(services.engine, services.webhook_secrets, services.fetcher)
    running = asyncio.create_task(deliverer.run())
    await until(lambda: len(hooks.receiver.at(slow)) >= PER_LANE)
    started = time.monotonic()
    await hooks.failed_task(caller, operation="video.generate")
    await hooks.failed_task(other)
    await until(lambda: hooks.receiver.at(quick) and hooks.receiver.at(elsewhere))
    took_s = time.monotonic() - started
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await services.webhooks.delete(caller.account.id, endpoint)  # the next test's worker would wait for it

    assert took_s < 2
    assert len(hooks.receiver.at(slow)) < 2 * PER_LANE


async def test_one_account_has_its_places_however_many_hosts_it_names(hooks, caller, make_caller):
    other = await make_caller()
    for number in range(PER_ACCOUNT + 8):
        await hooks.failed_task(caller, webhook_url=f"http://10.0.0.{number}/")  # refused at once
    await hooks.failed_task(other, webhook_url=hooks.receiver.url())
    services = hooks.services
    deliverer = Deliverer(services.engine, services.webhook_secrets, services.fetcher)

    await deliverer.once()
    tried = Counter(row["tries"] for row in await hooks.rows(caller))
    await deliverer.once()

    assert tried == {1: PER_ACCOUNT, 0: 8}
    assert [row["state"] for row in await hooks.rows(other)] == ["delivered"]
    assert {row["tries"] for row in await hooks.rows(caller)} == {1}
    await hooks.give_up(caller)


async def test_receivers_whose_names_hang_keep_no_other_url_waiting(hooks, caller, monkeypatch):
    release, asked, resolve = threading.Event(), [], socket.getaddrinfo

    def slow(host, *arguments, **options):
        if str(host).endswith(".slow.example"):
            asked.append(host)
            release.wait(20)
            raise OSError
        return resolve("127.0.0.1" if host == "quick.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    for number in range(20):
        await hooks.failed_task(caller, webhook_url=f"http://{number}.slow.example/")

    delivering = asyncio.create_task(hooks.deliver())
    try:
        await until(lambda: len(asked) == 16)
        with pytest.raises(InputUrlRefused):  # it was resolved, and is private
            await hooks.services.fetcher.fetch("http://quick.example/", Path("never"), param="image_urls", max_bytes=1)
    finally:
        release.set()
        await delivering
        await hooks.give_up(caller)


async def test_a_410_takes_the_endpoint_before_its_delivery_so_that_two_at_once_take_turns(hooks, caller):
    endpoint, url, _ = await hooks.endpoint(caller)
    hooks.receiver.will_answer(url, 410, 410)
    for _ in range(2):
        await hooks.failed_task(caller)
    engine = hooks.services.engine

    async with engine.connect() as other:
        await other.exec_driver_sql(
            "SELECT FROM webhook_endpoints WHERE account_id = $1 FOR UPDATE", (caller.account.id,)
        )
        delivering = asyncio.create_task(hooks.deliver())
        await until_waited_for(other)
        rows = await other.exec_driver_sql(
            "SELECT FROM webhook_deliveries WHERE account_id = $1 FOR UPDATE NOWAIT", (caller.account.id,)
        )
        assert rows.rowcount == 2
        await other.rollback()
    await delivering

    assert (await hooks.services.webhooks.get(caller.account.id, endpoint)).disabled_reason == "gone"
    assert {row["state"] for row in await hooks.rows(caller)} == {"failed"}


async def until_waited_for(connection):
    """Wait until some session waits for what this one has locked."""
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    async with asyncio.timeout(20):
        while not (await connection.exec_driver_sql(waiting)).rowcount:
            pass


async def test_a_delivery_that_is_being_sent_is_not_sent_again_beside_it(hooks, caller):
    endpoint, url, _ = await hooks.endpoint(caller)
    path = url.rpartition("/")[2]
    hooks.receiver.hanging.add(path)
    await hooks.failed_task(caller)
    log, account = hooks.services.webhook_log, caller.account.id
    sending = asyncio.create_task(hooks.deliver())
    await until(lambda: hooks.receiver.at(url))
    [[delivery], _] = await log.list(account, endpoint, limit=1)

    with pytest.raises(InvalidParameter, match="being sent"):
        await log.redeliver(account, endpoint, delivery.public_id)
    hooks.receiver.hanging.discard(path)
    hooks.receiver.release.set()
    hooks.receiver.release = asyncio.Event()
    await sending

    assert len(hooks.receiver.at(url)) == 1
    assert (await log.redeliver(account, endpoint, delivery.public_id)).state == "pending"
    await hooks.deliver()
    assert len(hooks.receiver.at(url)) == 2


async def test_what_is_being_claimed_when_a_process_stops_is_sent_before_it_ends(hooks, caller):
    _, url, _ = await hooks.endpoint(caller)
    await hooks.failed_task(caller)
    services = hooks.services
    deliverer = Deliverer(services.engine, services.webhook_secrets, services.fetcher)

    async with services.engine.connect() as other:
        await other.exec_driver_sql("LOCK TABLE webhook_secrets")
        running = asyncio.create_task(deliverer.run())
        await until_waited_for(other)  # claimed, and its secret is being read
        draining = asyncio.create_task(deliverer.drain(10))
        await other.rollback()
    left = await draining
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert (left, len(hooks.receiver.at(url))) == (0, 1)
    assert [row["state"] for row in await hooks.rows(caller)] == ["delivered"]


async def test_many_events_of_one_endpoint_are_not_bound_to_the_tick_of_the_loop(hooks, caller):
    _, url, _ = await hooks.endpoint(caller)
    for _ in range(20 * PER_LANE):
        await hooks.failed_task(caller)

    services = hooks.services
    deliverer = Deliverer(services.engine, services.webhook_secrets, services.fetcher)
    started = time.monotonic()
    running = asyncio.create_task(deliverer.run())
    await until(lambda: len(hooks.receiver.at(url)) == 20 * PER_LANE)
    took_s = time.monotonic() - started
    await deliverer.drain(5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert took_s < 20 * TICK_S
    assert {row["state"] for row in await hooks.rows(caller)} == {"delivered"}


async def test_what_a_dead_process_left_is_sent_by_the_next_with_the_same_id_and_the_dead_one_writes_nothing(
    hooks, caller
):
    _, url, _ = await hooks.endpoint(caller)
    path = url.rpartition("/")[2]
    hooks.receiver.hanging.add(path)
    await hooks.failed_task(caller)
    services = hooks.services
    first = Deliverer(services.engine, services.webhook_secrets, services.fetcher)
    sending = asyncio.create_task(first.once())
    await until(lambda: hooks.receiver.at(url))
    await hooks.deliver()
    assert len(hooks.receiver.at(url)) == 1, "the lease keeps others away"

    hooks.receiver.hanging.discard(path)
    await hooks.all_due(caller)
    await hooks.deliver()
    hooks.receiver.release.set()
    hooks.receiver.release = asyncio.Event()
    await sending

    tries = hooks.receiver.at(url)
    assert len(tries) == 2
    assert tries[0].headers["webhook-id"] == tries[1].headers["webhook-id"]
    [row] = await hooks.rows(caller)
    assert (row["state"], row["tries"]) == ("delivered", 1)


async def test_a_worker_killed_between_the_settlement_and_the_delivery_loses_nothing(hooks, caller, tmp_path):
    _, url, secret = await hooks.endpoint(caller)
    path = url.rpartition("/")[2]
    hooks.receiver.hanging.add(path)
    environment = as_environment(hooks.services.settings) | {
        "MEDIAGATE_FETCH_ALLOW_HOSTS": json.dumps([hooks.receiver.host])
    }

    def start():
        with (tmp_path / "worker.log").open("ab") as output:
            return subprocess.Popen(
                launch_command([sys.executable, "-m", "app.cli", "worker"]),
                cwd=ROOT,
                env=environment | {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
                stdout=output,
                stderr=output,
            )

    await hooks.failed_task(caller)
    worker = start()
    try:
        await until(lambda: hooks.receiver.at(url) or worker.poll() is not None, patience_s=40)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        hooks.receiver.hanging.discard(path)
        await hooks.all_due(caller)  # as when the lease is over
        worker = start()
        await until(lambda: len(hooks.receiver.at(url)) > 1 or worker.poll() is not None, patience_s=40)
    finally:
        worker.terminate()
        worker.wait()

    first, second = hooks.receiver.at(url)
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert unwrapped(second, secret).type == "image.failed"


async def test_the_node_sdk_verifies_it_too():
    body, secret = (
        b'{"id":"evt_1","object":"event","type":"video.completed","created_at":1,"data":{"id":"task_1"}}',
        mint_secret(),
    )
    signed = headers([mint_secret(), secret], event_id="evt_1", timestamp=int(time.time()), body=body)
    folder = ROOT / "tests" / "node"
    if not (folder / "node_modules" / "openai").is_dir():
        pytest.skip("the Node SDK is not installed")
    script = (
        "const OpenAI=require('openai');const [b,h,s]=JSON.parse(process.argv[1]);"
        "new OpenAI({apiKey:'x'}).webhooks.unwrap(b,h,s).then(e=>console.log(e.data.id))"
    )

    done = await asyncio.to_thread(
        subprocess.run,
        ["node", "-e", script, json.dumps([body.decode(), signed, secret])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout.strip(), done.returncode) == ("task_1", 0), done.stderr


async def test_secrets_are_sealed_anew_and_lost_ones_are_replaced_and_their_endpoints_disabled(
    settings, fresh_database, receiver
):
    url = fresh_database(migrated=True)
    engine = db.make_engine(url, pooled=False)
    account = await make_account(engine)
    old, new = SecretBox(SECRETS_KEY), SecretStr("another secrets key that only tests use..")
    both = SecretBox(SecretStr(f"{new.get_secret_value()},{SECRETS_KEY.get_secret_value()}"))
    fetcher = SafeFetcher(settings)
    endpoints = Endpoints(engine, Secrets(engine, old), fetcher, low_credits=None)
    made, secret = await endpoints.create(account.id, name="a", url=receiver.url(), event_types=["image.failed"])
    one_off = await Secrets(engine, old).of_account(account.id)

    with pytest.raises(WrongSecretsKey):
        await Secrets(engine, SecretBox(new)).reencrypt()
    stranger = Endpoints(engine, Secrets(engine, SecretBox(new)), fetcher, low_credits=None)
    with pytest.raises(WrongSecretsKey):  # the others could not open what it seals
        await stranger.create(account.id, name="b", url=receiver.url(), event_types=["image.failed"])
    kept = await Secrets(engine, both).reencrypt()
    opened = await Secrets(engine, SecretBox(new)).live([made.owner, Owner(account.id)])
    lost = await Secrets(engine, old).reencrypt(drop_unreadable=True)
    found = await endpoints.get(account.id, made.public_id)
    _, replaced = await endpoints.rotate_secret(account.id, made.public_id, keep_old=False)

    assert (kept, lost) == ((2, 0), (0, 2))
    assert opened == {made.owner: [secret], Owner(account.id): [one_off]}
    assert (found.state, found.disabled_reason) == ("disabled", "secret_lost")
    assert await Secrets(engine, old).live([made.owner]) == {made.owner: [replaced]}
    await engine.dispose()
