import fastapi
import gradio as gr
import uvicorn

app = fastapi.FastAPI()
demo = gr.Interface(lambda path: path, gr.File(), gr.File())
app = gr.mount_gradio_app(app, demo, path="/deep/demo")


@app.get("/own")
def own():
    return {"own": True}


uvicorn.run(app)
