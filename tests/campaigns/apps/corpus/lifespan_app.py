import contextlib

import fastapi
import gradio as gr
import uvicorn


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"ready": True}


demo = gr.Interface(lambda path: path, gr.File(), gr.File())
app = gr.mount_gradio_app(fastapi.FastAPI(lifespan=lifespan), demo, path="/")
uvicorn.run(app)
