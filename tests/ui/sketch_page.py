"""A page with a mask sketcher on a real queue, to test it and, with ``python -m tests.ui.sketch_page [PORT]``, to look at it."""

import io
import sys
import tempfile
import time
from pathlib import Path

import gradio as gr
from PIL import Image

import ui
from engine import TextRequest, plan
from tests.ui.studios import full_library, open_jobs
from ui.image_input import Upload, Uploads
from ui.sketcher import IMAGE_FIELD, read_sketch, sketcher, write_sketch
from ui.theme import island


class SketchPage:
    """The running page: *Generate* queues a job with what is on the sketcher."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.jobs = open_jobs(folder)
        self.uploads = Uploads(folder / "uploads")
        self.studio = ui.Studio(jobs=self.jobs, library=full_library(), uploads=self.uploads)
        self.asked: list[dict[str, bytes]] = []
        self.demo = self._build()
        _, self.address, _ = self.demo.launch(
            **ui.launch_options(),
            server_name="127.0.0.1",
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            app_kwargs={"routes": ui.routes(self.studio)},
        )

    def _build(self) -> gr.Blocks:
        with gr.Blocks(analytics_enabled=False, fill_width=True) as demo:
            island("masthead.js", "masthead")
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab("Inpaint"):
                    part = sketcher("sketch", submits=("generate", "show"))
                    gr.Textbox(elem_id="prompt", show_label=False)
                    with gr.Row():
                        generate = gr.Button("Generate", elem_id="generate", variant="primary")
                        flip = gr.Button("Show another mask", elem_id="show")
                        late = gr.Button("Mask of the last job's picture", elem_id="late")
                    answer = gr.Textbox(elem_id="answer", show_label=False)
                with gr.Tab("Other"):
                    gr.Markdown("Another tab")
            generate.click(self._submit, part, answer, show_progress="hidden")
            flip.click(self._show, part, part, show_progress="hidden")
            late.click(self._show_late, None, part, show_progress="hidden")
        return demo

    def _submit(self, value: str) -> str:
        sketch = read_sketch(value, self.uploads, "local")
        inputs = (
            {name: path.read_bytes() for name, path in sketch.paths().items()} if sketch else {}
        )
        wanted = plan(TextRequest(prompt="changed", num_images=1), self.studio.library, seed=1)
        self.jobs.submit(wanted, inputs=inputs)
        self.asked.append(inputs)
        return f"queued {len(self.asked)}"

    def _show(self, value: str) -> str:
        """Answer with the left half of the picture as its mask."""
        sketch = read_sketch(value, self.uploads, "local")
        assert sketch is not None
        return write_sketch(sketch.image, self._half(sketch.image))

    def _show_late(self) -> str:
        """Answer with a mask of the picture that a job got last, whatever is shown by now."""
        image = self.uploads.save(self.asked[-1][IMAGE_FIELD], "local")
        return write_sketch(image, self._half(image), is_late=True)

    def _half(self, image: Upload) -> Upload:
        file = io.BytesIO()
        mask = Image.new("L", (image.width, image.height))
        mask.paste(255, (0, 0, image.width // 2, image.height))
        mask.save(file, "PNG")
        return self.uploads.save(file.getvalue(), "local")

    def close(self) -> None:
        self.demo.close()
        self.jobs.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        page = SketchPage(Path(place), int([*sys.argv[1:], "7861"][0]))
        try:
            time.sleep(1e9)
        except KeyboardInterrupt:
            page.close()
