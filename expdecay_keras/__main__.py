import sys

from expdecay_keras.cli import main

sys.exit(main())
