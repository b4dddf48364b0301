import gradio as gr


def refuses(path):
    raise gr.Error("not today")


def fails(path):
    return "/etc/hostname/none"


with gr.Blocks() as demo:
    file, shown = gr.File(), gr.File()
    file.upload(refuses, file, shown)
    gr.Button("Fail").click(fails, file, shown)

demo.launch(show_error=True)
