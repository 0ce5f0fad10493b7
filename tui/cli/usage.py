"""What `epochtop --help` prints."""

HELP = """\
epochtop trains PyTorch models on this machine and shows them live in the terminal.

  epochtop [--start] [FIELDS]          open the app; --start also starts training
  epochtop train [FIELDS]              train in the foreground with a progress bar or plain lines
  epochtop run COMMAND…                run your own training program, unchanged, and show it
  epochtop runs [--json] [PATH…]       list your runs, or those at PATH
  epochtop attach RUN                  open a live or finished run in the app
  epochtop open PATH…                  show logs of TensorBoard, wandb, Lightning, Keras, MLflow and others
  epochtop resume RUN                  resume a run that was stopped, killed or interrupted
  epochtop stop RUN                    finish the step, evaluate, save, end
  epochtop --host USER@BOX             open the app with the runs of another machine (also: runs, attach, stop, export)
  epochtop pull RUN --host USER@BOX    copy a run from another machine; an interrupted copy continues
  epochtop predict RUN FILE            add the model's predictions to the rows of a file, or to images
  epochtop export RUN --format FORMAT  losses (csv, jsonl, tensorboard), weights (safetensors, torch), model (onnx)
  epochtop export RUN --series NAME…   series of a run or of another tool's log (csv, jsonl)
  epochtop find-lr [FIELDS]            find a good learning rate with a range test
  epochtop find-batch [FIELDS]         find the largest batch that fits, by running full steps
  epochtop lab [NAME] [FIELDS]         run an experiment; without a name, list the experiments
  epochtop lab --results               list the results; attach and export accept their ids
  epochtop lab --compare ID [ID]       compare two results of one experiment; one ID alone with the newest other result
  epochtop hardware [--json] [--torch] show this machine's hardware and what it can run
  epochtop config [--json]             show the configuration and where each value comes from
  epochtop notify --test               send a test message through every configured route

RUN is an id, the start of an id, a name, `last`, or the path of a log. FIELDS are the settings of a run; the default trains on
scikit-learn's Iris. `epochtop train --help` lists all of them.

Examples:
  epochtop --start
  epochtop train --dataset digits --hidden 64 --optimizer adam --learning-rate 0.001 --epochs 200
  epochtop train --dataset csv:houses.csv --target price --name houses --detach
  epochtop run python train.py
  epochtop predict houses new_houses.csv --output priced.csv
  epochtop export last --format csv > losses.csv
"""
