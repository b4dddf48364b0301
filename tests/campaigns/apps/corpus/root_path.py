import gradio as gr

demo = gr.Interface(lambda path: path, gr.Image(type="filepath"), gr.Image())
demo.launch(root_path="/behind/a/proxy")
