import gradio as gr

demo = gr.Interface(lambda path: path, gr.Image(type="filepath"), gr.Image())
demo.launch(ssr_mode=True)
