import gradio as gr


def subtitled(path):
    return gr.Video(path, subtitles=[{"text": "Hello.", "timestamp": [0, 1]}])


with gr.Blocks() as demo:
    video, shown = gr.Video(), gr.Video()
    video.upload(subtitled, video, shown)

demo.launch()
