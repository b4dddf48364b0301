import fastapi
import gradio as gr
import uvicorn

app = fastapi.FastAPI()
first = gr.Interface(lambda path: path, gr.File(), gr.File())
second = gr.Interface(lambda path: path, gr.Image(type="filepath"), gr.Image())
gr.mount_gradio_app(app, first, path="/first")
gr.mount_gradio_app(app, second, path="/second")
uvicorn.run(app)
