"""Several devices behind one queue: sessions on the CPU stand for them, through the same interface as GPUs."""

from concurrent.futures import ThreadPoolExecutor

from tests.e2e.conftest import Serve, Server, noise, png


def test_two_devices_share_the_work_and_answer_alike(serve_session: Serve, server: Server) -> None:
    both = serve_session(devices="2")
    with both.client() as client, server.client() as alone:
        ready = client.get("/readyz").json()
        assert ready["devices"] == {"cpu:0": True, "cpu:1": True}
        assert alone.get("/readyz").json()["devices"] == {"cpu": True}

        def enhanced(seed: int) -> None:
            picture = png(noise(400, 500, seed))
            answer = client.post("/enhance", files={"image": picture})
            assert answer.status_code == 200
            assert answer.content == alone.post("/enhance", files={"image": picture}).content

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(enhanced, range(8)))
    for device in ready["devices"]:
        assert both.metric(f'pix2dslr_tiles_total{{device="{device}"}}') > 0
        assert both.metric(f'pix2dslr_device_up{{device="{device}"}}') == 1
    assert both.metric("pix2dslr_tiles_total") == both.metric("pix2dslr_batch_tiles_sum")
    assert both.metric("pix2dslr_queue_tiles") == 0
