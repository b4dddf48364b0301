import fastapi
import gradio as gr
import uvicorn


def user(request: fastapi.Request):
    return request.headers.get("x-user", "somebody")


demo = gr.Interface(lambda path: path, gr.File(), gr.File())
app = gr.mount_gradio_app(fastapi.FastAPI(), demo, path="/demo", auth_dependency=user)
uvicorn.run(app)
